"""Pixel data of segmentations, made piece by piece while it is written."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dicom_out.encoding import pixel_data
from dicom_out.frames import Frame
from dicom_out.masks import LabelArray, Masks, zeros
from dicom_out.rle import rle_frame
from dicom_out.segoptions import SegType
from dicom_out.segplan import FULL, SegPart

Piece = bytes | memoryview

_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def encoded_pixels(part: SegPart, *, pixels: int, rle: bool) -> Iterator[Piece]:
    """Yield the Pixel Data element of an instance; ``pixels`` is the number of pixels of a frame."""
    if part.type is SegType.BINARY and part.masks is not None:
        length = -(-pixels * len(part.frames) // 8)
        return pixel_data("OB", length, packed(part.masks, part.frames))
    planes = _planes_of(part)
    if rle:
        return _compressed(planes)
    size = pixel_bytes(part)
    values = (np.ascontiguousarray(plane, f"<u{size}").data.cast("B") for plane in planes)
    return pixel_data("OB" if size == 1 else "OW", pixels * size * len(part.frames), values)


def pixel_bytes(part: SegPart) -> int:
    """Return the bytes of a pixel that is not a bit: two from the 256th segment on."""
    return 2 if part.type is SegType.LABELMAP and len(part.segments) > 255 else 1


def packed(masks: Masks, frames: Sequence[Frame]) -> Iterator[bytes]:
    """Yield the bits of the frames, one after the other without padding between them (PS3.5 Section 8.1.1).

    The first pixel is the lowest bit. Eight frames always fill whole bytes.
    """
    _, rows, columns = masks.shape
    step = 1 if rows * columns % 8 == 0 else 8
    for start in range(0, len(frames), step):
        planes = [masks.mask(frame.segment, frame.slice_index) for frame in frames[start : start + step]]
        together = planes[0] if len(planes) == 1 else np.stack(planes)
        yield np.packbits(together, axis=None, bitorder="little").tobytes()


def _planes_of(part: SegPart) -> Iterator[LabelArray]:
    if part.type is SegType.FRACTIONAL:
        for frame in part.frames:
            yield fractions(part.probabilities[frame.segment - 1][frame.slice_index])
    elif part.masks is not None:
        renumbered = _renumbering(part)
        for frame in part.frames:
            plane = part.masks.plane(frame.slice_index)
            yield plane if renumbered is None else renumbered[plane]


def fractions(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return probabilities from 0 to 1 in steps of 1/255, rounded to the nearest."""
    values: npt.NDArray[np.uint8] = np.floor(np.clip(probability, 0, 1) * FULL + 0.5).astype(np.uint8)
    return values


def _renumbering(part: SegPart) -> LabelArray | None:
    """Return the number within the instance by that of the findings; ``None`` where they are the same."""
    if part.masks is None or len(part.segments) == part.masks.segments:
        return None
    table = zeros((part.masks.segments + 1,), len(part.segments))
    table[list(part.segments)] = np.arange(1, len(part.segments) + 1)
    return table


def _compressed(planes: Iterable[LabelArray]) -> Iterator[bytes]:
    """Yield frames in RLE Lossless, one fragment each, with a Basic Offset Table (PS3.5 A.4.2, G)."""
    fragments = [rle_frame(plane) for plane in planes]
    offsets = np.cumsum([0, *(8 + len(item) for item in fragments[:-1])]).tolist()
    yield struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    yield _ITEM + struct.pack(f"<L{len(offsets)}L", 4 * len(offsets), *offsets)
    for item in fragments:
        yield _ITEM + struct.pack("<L", len(item))
        yield item
    yield _END
