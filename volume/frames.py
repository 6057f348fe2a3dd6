"""From the header of an enhanced image, or of a mosaic, to one header for each of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from domain.instance import FrameHeader, Header
from volume.mosaic import tiles_of

_NAMES = tuple(field.name for field in fields(FrameHeader))


def frames_of(header: Header) -> tuple[Header, ...]:
    """Return one header a frame or tile, in the order of the instance; of any other image the header itself.

    What a frame says goes before what its instance says. A mosaic whose tiles are not proven stays whole.
    """
    if header.mosaic is not None:
        return tiles_of(header) or (header,)
    if not header.frames:
        return (header,)
    return tuple(
        replace(header, frames=(), frame_number=number, **_said(frame))
        for number, frame in enumerate(header.frames, start=1)
    )


def with_frames(headers: Sequence[Header]) -> list[Header]:
    """Return ``headers`` with every enhanced image replaced by its frames, and every mosaic by its tiles."""
    return [frame for header in headers for frame in frames_of(header)]


def image_names(headers: Sequence[Header]) -> tuple[str, ...]:
    """Return what names each image: two stacks of one instance are two sets."""
    return tuple(
        header.sop_instance_uid if header.frame_number is None else f"{header.sop_instance_uid}#{header.frame_number}"
        for header in headers
    )


def frame_numbers(headers: Sequence[Header]) -> tuple[int | None, ...]:
    """Return the number of each image in its instance; empty where each is a whole instance."""
    numbers = tuple(header.frame_number for header in headers)
    return numbers if any(number is not None for number in numbers) else ()


def _said(frame: FrameHeader) -> dict[str, Any]:
    return {name: value for name in _NAMES if (value := getattr(frame, name)) is not None}
