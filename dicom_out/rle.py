"""RLE Lossless frames (PS3.5 Annex G), encoded by whole arrays: masks are long runs."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from dicom_out.masks import LabelArray

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.intp]
_LONGEST = 128
"""Bytes that one run, of equal or of different bytes, stands for."""


def rle_frame(plane: LabelArray) -> bytes:
    """Return a frame: a header with the places of the segments, one for each byte of a pixel, highest first."""
    size = plane.dtype.itemsize
    parts = plane.astype(f">u{size}").view(np.uint8).reshape(*plane.shape, size)
    segments = [_segment(np.ascontiguousarray(parts[..., n])) for n in range(size)]
    places = np.cumsum([64, *(len(segment) for segment in segments[:-1])]).tolist()
    return struct.pack("<16L", size, *places, *[0] * (15 - size)) + b"".join(segments)


def _segment(plane: ByteArray) -> bytes:
    """Return a segment of even length: runs of equal bytes, and what lies between them as it is (PS3.5 G.3.1).

    No run goes beyond its row.
    """
    values, lengths, rows = _runs(plane)
    is_alone = lengths == 1
    opens = np.ones(len(values), np.bool_)
    opens[1:] = ~(is_alone[1:] & is_alone[:-1]) | (rows[1:] != rows[:-1])
    first, counts = _parts(np.flatnonzero(opens), len(values))
    coded = np.zeros((len(values) + len(first) + 1) // 2 * 2, np.uint8)
    coded[np.arange(len(values)) + np.repeat(np.arange(len(first)), counts) + 1] = values
    coded[first + np.arange(len(first))] = np.where(is_alone[first], counts - 1, 257 - lengths[first])
    return coded.tobytes()


def _runs(plane: ByteArray) -> tuple[ByteArray, IntArray, IntArray]:
    """Return value, length and row of each run of equal bytes."""
    flat, columns = plane.ravel(), plane.shape[1]
    changes = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=changes[1:])
    changes[::columns] = True
    starts, lengths = _parts(np.flatnonzero(changes), flat.size)
    return flat[starts], lengths, starts // columns


def _parts(starts: IntArray, end: int) -> tuple[IntArray, IntArray]:
    """Return begin and length of parts that are as long as a run may be, of parts that begin one after the other."""
    lengths = np.diff(starts, append=end)
    parts = -(-lengths // _LONGEST)
    before = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = np.repeat(starts, parts) + before * _LONGEST
    return begin, np.diff(begin, append=end)
