"""Where the segments of findings are, however the findings hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domain.findings import Findings

LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """One array of labels, or one mask for each segment.

    Attributes
    ----------
    shape
        ``(slices, rows, columns)``.
    overlap
        Whether a voxel belongs to two segments.
    pixels
        Of each slice, how many pixels each segment has there that has any.
    """

    shape: tuple[int, int, int]
    segments: int
    overlap: bool
    pixels: tuple[Mapping[int, int], ...] = field(repr=False)
    labels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    separate: tuple[BoolArray, ...] = field(default=(), repr=False)

    def mask(self, segment: int, k: int) -> BoolArray:
        """Return the pixels of a segment, from 1, on a slice."""
        if self.labels is None:
            given: BoolArray = self.separate[segment - 1][k]
            return given
        pixels: BoolArray = self.labels[k] == segment
        return pixels

    def present(self, k: int) -> list[int]:
        """Return the segments that have a pixel on a slice."""
        return list(self.pixels[k])

    def plane(self, k: int) -> LabelArray:
        """Return the segment number of each pixel of a slice; only where segments do not overlap."""
        if self.labels is not None:
            labels: LabelArray = self.labels[k]
            return labels
        plane = zeros(self.shape[1:], self.segments)
        for number in self.present(k):
            plane[self.separate[number - 1][k]] = number
        return plane


def zeros(shape: tuple[int, ...], highest: int) -> LabelArray:
    """Return an array of background that can hold ``highest``: 8 bits, or 16 from the 256th segment on."""
    return np.zeros(shape, np.uint8) if highest <= 255 else np.zeros(shape, np.uint16)


def masks_of(findings: Findings) -> Masks | None:
    """Return the masks of findings; ``None`` where the engine gives none."""
    shape, count = findings.shape, len(findings.segments)
    if shape is None:
        return None
    size = (shape[0], shape[1], shape[2])
    if findings.labels is not None:
        pixels = tuple(_pixels(plane) for plane in findings.labels)
        return Masks(size, count, overlap=False, pixels=pixels, labels=findings.labels)
    pixels = tuple(_pixels_of(planes) for planes in zip(*findings.masks, strict=True))
    return Masks(size, count, overlap=_overlaps(findings.masks), pixels=pixels, separate=findings.masks)


def _overlaps(masks: tuple[BoolArray, ...]) -> bool:
    """Tell whether two of the masks share a voxel; looks at one slice at a time."""
    for planes in zip(*masks, strict=True):
        taken = np.zeros_like(planes[0])
        for plane in planes:
            if np.logical_and(taken, plane).any():
                return True
            taken |= plane
    return False


def _pixels_of(planes: tuple[BoolArray, ...]) -> dict[int, int]:
    counts = {number: int(np.count_nonzero(plane)) for number, plane in enumerate(planes, start=1)}
    return {number: count for number, count in counts.items() if count}


def _pixels(plane: npt.NDArray[np.uint8]) -> dict[int, int]:
    """Count the pixels of each label of a slice; looks at the ends of runs, which is an order faster than sorting."""
    flat = plane.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    counts = np.bincount(flat[ends], weights=np.diff(ends, prepend=-1))
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts) if number}
