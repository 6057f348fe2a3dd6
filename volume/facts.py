"""What routes and engines may know of a stack, taken from its headers; nothing identifies a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from domain.instance import Header
from domain.series import SeriesFacts, Stack
from domain.volume import Grid

T = TypeVar("T")


def facts(stack: Stack, grid: Grid | None, sender: str | None) -> SeriesFacts:
    """Return the facts of a stack: the most frequent value of each attribute, ``None`` where no slice has one.

    Parameters
    ----------
    stack
        With at least one instance, refused or not.
    grid
        Its proven grid; ``None`` where it is no volume.
    sender
        Calling AE title of the last sender.
    """
    headers = stack.headers
    return SeriesFacts(
        modality=_usual(headers, lambda h: h.modality),
        sop_class_uid=_usual(headers, lambda h: h.sop_class_uid) or "",
        instances=len(headers),
        kind=stack.kind,
        body_part_examined=_usual(headers, lambda h: h.body_part_examined),
        series_description=_usual(headers, lambda h: h.series_description),
        protocol_name=_usual(headers, lambda h: h.protocol_name),
        image_type=_usual(headers, lambda h: h.image_type or None) or (),
        slice_thickness_mm=_usual(headers, lambda h: h.slice_thickness_mm),
        spacing_mm=None if grid is None else grid.spacing_mm,
        convolution_kernel=_usual(headers, lambda h: h.convolution_kernel),
        repetition_time_ms=_usual(headers, lambda h: h.repetition_time_ms),
        echo_time_ms=_usual(headers, lambda h: h.echo_time_ms),
        inversion_time_ms=_usual(headers, lambda h: h.inversion_time_ms),
        scanning_sequence=_usual(headers, lambda h: h.scanning_sequence),
        # The attribute is often left out, so that its absence proves nothing.
        contrast=True if any(h.contrast_bolus_agent for h in headers) else None,
        manufacturer=_usual(headers, lambda h: h.manufacturer),
        burned_in_annotation=_burned_in(headers),
        sender=sender,
    )


def _burned_in(headers: Sequence[Header]) -> bool | None:
    said = {header.burned_in_annotation for header in headers}
    return True if "YES" in said else False if said == {"NO"} else None


def _usual(headers: Sequence[Header], value: Callable[[Header], T | None]) -> T | None:
    """Return the most frequent value; of equally frequent ones the smallest, whatever the order of ``headers``."""
    found = Counter(own for own in map(value, headers) if own is not None)
    if not found:
        return None
    most = max(found.values())
    return min((own for own, count in found.items() if count == most), key=repr)
