"""RLE (PS3.5 G) decoded segment by segment, for grey frames and as a plug-in of pydicom.

pylibjpeg-rle decodes a segment quickly, so quickly that Python's lock, which it keeps, is no matter. But given a
whole frame it cuts off silently what is longer than Rows and Columns say, or ends its thread. Importing this module
makes pydicom know this plug-in.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders import RLELosslessDecoder
from pydicom.uid import RLELossless
from rle.rle import decode_segment

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL: Final = "rle by segments"
DECODER_DEPENDENCIES = {RLELossless: ("pylibjpeg-rle>=2.0",)}
"""Looked for by pydicom, as are the two functions."""
_HEADER: Final = struct.Struct("<16I")
"""The number of segments, and where each begins (PS3.5 G.5)."""

Bytes = npt.NDArray[np.uint8]


def is_available(uid: str) -> bool:
    """Tell whether this plug-in decodes a transfer syntax."""
    return uid == RLELossless


def decode(src: bytes, out: Bytes) -> None:
    """Decode a frame into ``out``, shape ``(samples, rows, columns, bytes of a sample)``, little endian.

    Raises
    ------
    ValueError
        The frame is damaged, or another than ``out``.
    """
    samples, rows, columns, size = out.shape
    if len(src) < _HEADER.size:
        raise ValueError("a frame without header")
    count, *offsets = _HEADER.unpack_from(src)
    bounds = [*offsets[: samples * size], len(src)]
    if count != samples * size or bounds[0] < _HEADER.size or bounds != sorted(bounds):
        raise ValueError("another number of segments than samples and bits allocated say")
    for k in range(count):
        # The highest byte of a sample comes first (PS3.5 G.2).
        plane = decode_segment(src[bounds[k] : bounds[k + 1]])
        # A byte more may be what made the segment even; a row or column more is another image.
        if not 0 <= len(plane) - rows * columns < min(rows, columns):
            raise ValueError("another size than rows and columns say")
        values = np.frombuffer(plane, np.uint8, rows * columns)
        out[k // size, :, :, size - 1 - k % size] = values.reshape(rows, columns)


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Return one frame, its samples one after the other."""
    shape = runner.samples_per_pixel, runner.rows, runner.columns, runner.bits_allocated // 8
    frame = bytearray(int(np.prod(shape)))
    decode(src, np.frombuffer(frame, np.uint8).reshape(shape))
    runner.set_option("planar_configuration", 1)
    return frame


if LABEL not in RLELosslessDecoder.available_plugins:
    RLELosslessDecoder.add_plugin(LABEL, (__name__, "_decode_frame"))
