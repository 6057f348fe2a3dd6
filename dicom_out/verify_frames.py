"""Frames of a segmentation read back, and what the findings say should be in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.tag import Tag
from rle.rle import decode_frame

from domain.errors import VerificationFailed
from domain.findings import Findings

_PIXEL_DATA = Tag(0x7FE00010)
_ENCAPSULATED = 0xFFFFFFFF
_FULL = 255
_STEP = 0.5 / _FULL + 1e-6
"""How far a fraction may be from the probability: half a step of what the object can hold."""

BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]


def frames_in(seg: Dataset) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield of each frame its first row, from 0, and its pixels from there on, as bits or as whole numbers.

    Rows without a bit before and behind those of a bit are left out. What is yielded holds until the next one.
    """
    kind, bits = str(seg.SegmentationType), int(seg.BitsAllocated)
    if (kind, bits) not in (("BINARY", 1), ("FRACTIONAL", 8), ("LABELMAP", 8), ("LABELMAP", 16)):
        raise VerificationFailed("SEG: BitsAllocated does not fit SegmentationType.")
    shape, count = (int(seg.Rows), int(seg.Columns)), int(seg.NumberOfFrames)
    pixels = shape[0] * shape[1]
    if seg.file_meta.TransferSyntaxUID.is_encapsulated:
        for coded in generate_frames(seg.PixelData, number_of_frames=count):
            # shares no code with the encoder here, and is five times faster than pydicom's own
            frame = decode_frame(coded, pixels, bits, "<")
            yield 0, np.frombuffer(frame, f"<u{bits // 8}").reshape(shape)
        return
    with _pixel_data(seg) as (length, read):
        if length != (pixels * count * bits + 15) // 16 * 2:
            raise VerificationFailed("SEG: PixelData does not have the pixels of its frames.")
        for index in range(count):
            first, last = index * pixels * bits // 8, -(-(index + 1) * pixels * bits // 8)
            data = np.frombuffer(read(first, last), np.uint8)
            if bits == 1:
                yield _rows_of_bits(data, index * pixels % 8, shape)
            else:
                yield 0, data.view(f"<u{bits // 8}").reshape(shape)


def _rows_of_bits(data: ByteArray, skip: int, shape: tuple[int, int]) -> tuple[int, BoolArray]:
    """Return the rows from the first to the last with a bit; the lowest bit is first (PS3.5 8.1.1).

    ``skip`` bits at the beginning are of the frame before.
    """
    rows, columns = shape
    filled = np.flatnonzero(data != 0)
    if not filled.size:
        return 0, np.zeros((0, columns), np.bool_)
    first = max(0, int(filled[0]) * 8 - skip) // columns
    last = min(rows, -(-(int(filled[-1]) * 8 + 8 - skip) // columns))
    start, end = first * columns + skip, last * columns + skip
    bits = np.unpackbits(data[start // 8 : -(-end // 8)], bitorder="little")[start % 8 : start % 8 + end - start]
    return first, bits.view(np.bool_).reshape(last - first, columns)


@contextmanager
def _pixel_data(seg: Dataset) -> Iterator[tuple[int, Callable[[int, int], bytes | memoryview]]]:
    """Give the length of PixelData, and what reads a part of it, from the file where it was put off."""
    item = cast("DataElement | RawDataElement", seg.get_item(_PIXEL_DATA, keep_deferred=True))
    if not isinstance(item, RawDataElement) or item.value is not None or item.length == _ENCAPSULATED:
        data = memoryview(seg.PixelData)
        yield len(data), lambda first, last: data[first:last]
        return
    with open(str(seg.filename), "rb", buffering=0) as file:
        offset = item.value_tell
        yield item.length, lambda first, last: os.pread(file.fileno(), last - first, offset + first)


def voxel_counts(findings: Findings) -> dict[tuple[int, int], int]:
    """Return how many voxels each segment has on each slice, by segment number and slice, where there are any."""
    if findings.labels is not None:
        rows = ((k, _label_counts(plane)) for k, plane in enumerate(findings.labels))
        return {(int(n), k): int(counts[n]) for k, counts in rows for n in np.flatnonzero(counts) if n}
    held = findings.masks or tuple(values >= 0.5 for values in findings.probabilities)
    counts = {
        (number, k): int(np.count_nonzero(plane))
        for number, mask in enumerate(held, 1)
        for k, plane in enumerate(mask)
    }
    return {place: count for place, count in counts.items() if count}


def _label_counts(plane: ByteArray) -> npt.NDArray[np.intp]:
    """Return how often each label stands in a slice, by the lengths of its runs, of which there are few."""
    flat = plane.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    return np.bincount(flat[starts], weights=lengths).astype(np.intp)


class Comparison:
    """Frames beside what the findings say, one after the other."""

    def __init__(self, findings: Findings, voxels: Mapping[tuple[int, int], int], *, fractional: bool) -> None:
        self._findings = findings
        self._voxels = voxels
        self._expected = _fractions(findings) if fractional else voxels
        self._seen: dict[int, set[int]] = {}
        self._wrong = 0
        self._slices: set[int] = set()

    def mask(self, segment: int, k: int, first: int, found: BoolArray) -> None:
        """Compare the mask of a segment on a slice; ``found`` are all rows with a bit, from ``first`` on.

        Elsewhere nothing was found, and there is nothing if all pixels of the segment are in these rows.
        """
        self._see([segment], k)
        expected = mask_of(self._findings, segment, k, slice(first, first + len(found)))
        elsewhere = self._voxels.get((segment, k), 0) - int(np.count_nonzero(expected))
        self._differ(k, int(np.count_nonzero(found != expected)) + elsewhere)

    def labels(self, numbers: npt.NDArray[Any], k: int, found: npt.NDArray[Any]) -> None:
        """Compare a slice of numbers; ``numbers`` are those of the findings by value, the background's first."""
        self._see(numbers[1:].tolist(), k)
        if int(found.max(initial=0)) >= len(numbers):
            raise VerificationFailed("SEG: a pixel has a value that no segment describes.")
        meant = found if np.array_equal(numbers, np.arange(len(numbers))) else numbers[found]
        expected = _plane(self._findings, numbers, k, found.shape)
        if not np.array_equal(meant, expected):
            self._differ(k, int(np.count_nonzero(meant != expected)))

    def fractions(self, segment: int, k: int, found: npt.NDArray[Any]) -> None:
        """Compare the fractions of a segment on a slice with its probabilities."""
        self._see([segment], k)
        near = np.abs(found.astype(np.float32) / _FULL - self._findings.probabilities[segment - 1][k]) <= _STEP
        if not near.all():  # neither is anything near what is not a number
            self._differ(k, int(np.count_nonzero(~near)))

    def finish(self) -> None:
        """Count what is in no frame, and raise where anything differs."""
        for (segment, k), count in self._expected.items():
            if segment not in self._seen.get(k, ()):
                self._differ(k, count)
        if self._wrong:
            raise VerificationFailed(
                f"SEG: {self._wrong} voxel(s) on {len(self._slices)} slice(s) are not the engine's."
            )

    def _see(self, segments: list[int], k: int) -> None:
        seen = self._seen.setdefault(k, set())
        if not seen.isdisjoint(segments):
            raise VerificationFailed("SEG: a frame repeats a segment on a slice.")
        seen.update(segments)

    def _differ(self, k: int, count: int) -> None:
        if count:
            self._wrong += count
            self._slices.add(k)


def mask_of(findings: Findings, segment: int, k: int, rows: slice = slice(None)) -> BoolArray:
    """Return the pixels of a segment on rows of a slice, as the engine gave them."""
    if findings.labels is None:
        given: BoolArray = findings.masks[segment - 1][k, rows]
        return given
    mask: BoolArray = findings.labels[k, rows] == segment
    return mask


def _plane(findings: Findings, numbers: npt.NDArray[Any], k: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the segment of each pixel of a slice, of those segments only."""
    if findings.labels is not None:
        plane = findings.labels[k]
        return plane if len(numbers) > len(findings.segments) else np.where(np.isin(plane, numbers), plane, 0)
    found = np.zeros(shape, np.uint16)
    for segment in numbers[1:]:
        found[findings.masks[segment - 1][k]] = segment
    return found


def _fractions(findings: Findings) -> dict[tuple[int, int], int]:
    """Return where probabilities are so high that there must be a frame."""
    places = ((n, k, plane) for n, values in enumerate(findings.probabilities, 1) for k, plane in enumerate(values))
    counts = {(n, k): int(np.count_nonzero(~(plane <= _STEP))) for n, k, plane in places}
    return {place: count for place, count in counts.items() if count}
