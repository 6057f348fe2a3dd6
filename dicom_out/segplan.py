"""Which instances a segmentation has, and which frames each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dicom_out.frames import Frame
from dicom_out.masks import Masks
from dicom_out.segoptions import SegOptions, SegType
from domain.findings import Findings

FULL = 255
"""Maximum Fractional Value (0062,000E)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegPart:
    """One instance of a segmentation.

    Attributes
    ----------
    index
        From 0.
    segments
        Numbers of the findings' segments, in the order in which the instance numbers them from 1.
    frames
        In the order in which they are written, with the findings' numbers; in a label map those of whole slices,
        with the number 0.
    """

    index: int
    type: SegType
    segments: tuple[int, ...]
    frames: tuple[Frame, ...]
    overlap: str
    """Segments Overlap (0062,0013)."""
    masks: Masks | None = field(repr=False)
    probabilities: tuple[npt.NDArray[np.float32], ...] = field(default=(), repr=False)

    def number_of(self, segment: int) -> int:
        """Return the number, within the instance, of one of the findings' segments."""
        return self.segments.index(segment) + 1


def plan_seg(findings: Findings, masks: Masks | None, options: SegOptions) -> tuple[SegPart, ...]:
    """Return the instances to write; none where there are no masks, or where all frames would be empty."""
    kind = _type_that_fits(findings, masks, options.type)
    probabilities = findings.probabilities if kind is SegType.FRACTIONAL else ()
    if masks is None and not probabilities:
        return ()
    present = _present(masks, probabilities, options)
    if not present:
        return ()
    overlap = "UNDEFINED" if kind is SegType.FRACTIONAL else ("YES" if masks and masks.overlap else "NO")
    return tuple(
        SegPart(
            index=index, type=kind, segments=group, overlap=overlap, masks=masks, probabilities=probabilities,
            frames=_frames(group, present, kind),
        )
        for index, group in enumerate(_groups(len(findings.segments), present, kind, options.max_frames))
    )  # fmt: skip


def _type_that_fits(findings: Findings, masks: Masks | None, wanted: SegType) -> SegType:
    if wanted is SegType.FRACTIONAL and not findings.probabilities:
        return SegType.BINARY
    if wanted is SegType.LABELMAP and (masks is None or masks.overlap):
        return SegType.BINARY
    return wanted


def _present(
    masks: Masks | None, probabilities: Sequence[npt.NDArray[np.float32]], options: SegOptions
) -> dict[int, list[int]]:
    """Return the slices that a segment has frames on, by segment."""
    present: dict[int, list[int]] = {}
    for segment, k in _filled(masks, probabilities, keep_empty=options.keep_empty_frames):
        present.setdefault(segment, []).append(k)
    return present


def _filled(
    masks: Masks | None, probabilities: Sequence[npt.NDArray[np.float32]], *, keep_empty: bool
) -> Iterator[tuple[int, int]]:
    if probabilities:
        for number, values in enumerate(probabilities, start=1):
            yield from ((number, k) for k in range(len(values)) if keep_empty or float(values[k].max()) * FULL >= 0.5)
    elif masks is not None:
        for k in range(masks.shape[0]):
            yield from ((n, k) for n in (range(1, masks.segments + 1) if keep_empty else masks.present(k)))


def _groups(
    segments: int, present: dict[int, list[int]], kind: SegType, limit: int | None
) -> Iterator[tuple[int, ...]]:
    """Yield groups of segments whose frames are at most ``limit``, as long as a group has more than one."""
    group: list[int] = []
    held: set[tuple[int, int]] = set()
    for number in range(1, segments + 1):
        own = {(0 if kind is SegType.LABELMAP else number, k) for k in present.get(number, ())}
        if limit is not None and held and own and len(held | own) > limit:
            yield tuple(group)
            group, held = [], set()
        group.append(number)
        held |= own
    yield tuple(group)


def _frames(group: tuple[int, ...], present: dict[int, list[int]], kind: SegType) -> tuple[Frame, ...]:
    if kind is SegType.LABELMAP:
        slices = sorted({k for number in group for k in present.get(number, ())})
        return tuple(Frame(0, k) for k in slices)
    return tuple(Frame(number, k) for number in group for k in sorted(present.get(number, ())))
