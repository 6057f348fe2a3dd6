"""What a compressed frame says of itself, before a decoder believes it.

A codestream may claim another size than the header of its instance; a decoder allocates what it claims. It may be
cut off; a decoder may look for the rest for seconds.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_START_OF_IMAGE: Final = b"\xff\xd8"
_END_OF_IMAGE: Final = b"\xff\xd9"
_START_OF_FRAME_LS: Final = b"\xff\xf7"
_J2K: Final = b"\xff\x4f\xff\x51"
_JP2: Final = b"\x00\x00\x00\x0cjP  "
# Start of frame of JPEG (ITU-T T.81 Table B.1, without DHT, JPG and DAC) and of JPEG-LS (T.87 C.1.1).
_FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


class JpegFrame(NamedTuple):
    """What the frame header of JPEG or JPEG-LS says (ITU-T T.81 B.2.2); ``process`` is the marker's second byte."""

    process: int
    precision: int
    rows: int
    columns: int
    components: int


def size_of(codestream: bytes) -> tuple[int, int] | None:
    """Return rows and columns of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame; ``None`` where they cannot be read."""
    if codestream.startswith(_JP2):
        at = codestream.find(_J2K)
        return _j2k(codestream[at:]) if at >= 0 else None
    if codestream.startswith(_J2K):
        return _j2k(codestream)
    frame = jpeg_frame_of(codestream)
    return None if frame is None else (frame.rows, frame.columns)


def is_cut_off(codestream: bytes) -> bool:
    """Tell whether a JPEG-LS frame lacks its end, which no decoder forgives and CharLS takes seconds to miss.

    Compressed data never holds the marker: a bit 0 follows each byte of ones (ITU-T T.87 A.1).
    """
    return (
        codestream.startswith(_START_OF_IMAGE)
        and codestream.find(_START_OF_FRAME_LS, 2, 4096) > 0
        and _END_OF_IMAGE not in codestream
    )


def _j2k(data: bytes) -> tuple[int, int] | None:
    """Read the segment of image and tile size (ITU-T T.800 A.5.1): the grid less the image's offset on it."""
    if len(data) < 24:
        return None
    width, height, left, top = struct.unpack_from(">4I", data, 8)
    return height - top, width - left


def jpeg_frame_of(data: bytes) -> JpegFrame | None:
    """Return the first frame header; ``None`` where there is none."""
    at = 2 if data.startswith(_START_OF_IMAGE) else len(data)
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _FRAME_MARKERS:
            return JpegFrame(marker, *struct.unpack_from(">BHHB", data, at + 4))
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
