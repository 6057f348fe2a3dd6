"""How a segmentation is written for a destination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (PS3.4 B.5)."""


class SegType(StrEnum):
    """Segmentation Type (PS3.3 C.8.20.2.3)."""

    BINARY = "BINARY"
    """One bit a pixel, one frame for each segment on each slice: what every viewer reads."""
    LABELMAP = "LABELMAP"
    """One number a pixel, one frame for each slice: small, and not known to older software."""
    FRACTIONAL = "FRACTIONAL"
    """The engine's probabilities, in steps of 1/255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegOptions:
    """What a destination wants.

    What the findings do not allow gives way to BINARY: a label map of overlapping segments, and fractions without
    probabilities.
    """

    type: SegType = SegType.BINARY
    keep_empty_frames: bool = False
    """Frames without a pixel are written too, even where nothing at all was found."""
    max_frames: int | None = None
    """More frames than these are split, by groups of segments, into several instances of one series. A segment is
    never split: an instance of one segment may have more."""
    rle: bool = False
    """RLE Lossless; not for BINARY, whose single bits it cannot hold (PS3.5 8.2.2)."""

    def __post_init__(self) -> None:
        if self.rle and self.type is SegType.BINARY:
            raise ValueError("a BINARY segmentation cannot be RLE compressed")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError("max_frames must be at least 1")
