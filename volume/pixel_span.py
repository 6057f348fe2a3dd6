"""Finds the uncompressed pixels of a Part 10 file without parsing the dataset."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from volume.part10 import LONG_VRS, SHORT_VRS

_WINDOW: Final = 1 << 14  # most headers fit into the first read
_PIXEL_DATA: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = frozenset({_ITEM, _ITEM_END, _SEQUENCE_END})
_UNDEFINED: Final = 0xFFFFFFFF
_GROUP_LENGTH = struct.Struct("<HH2sHI")


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """Where the value of PixelData lies in the file, in bytes; ``length`` is what is really there."""

    offset: int
    length: int


def pixel_span(fd: int, *, implicit: bool) -> PixelSpan | None:
    """Return where PixelData of an open little endian Part 10 file lies.

    ``None`` where that cannot be said with certainty (no group length in the file meta information, an unknown VR, a
    sequence written as UN): the caller then parses the file. A sequence of undefined length is walked through, one of
    defined length is skipped. Sixteen kilobytes are held at a time.
    """
    size = os.fstat(fd).st_size
    data, start = os.pread(fd, _WINDOW, 0), 0
    position, depth = _dataset_start(data), 0
    while position is not None:
        if position + 12 > start + len(data):
            data, start = os.pread(fd, _WINDOW, position), position
        if len(data) - (position - start) < 8:
            return None
        tag, length, head, is_sequence = _element(data, position - start, implicit)
        if tag == _PIXEL_DATA and depth == 0:
            if length == _UNDEFINED:
                return None
            return PixelSpan(position + head, min(length, size - position - head))
        if tag in _DELIMITERS:
            depth -= tag == _SEQUENCE_END
            length = 0  # walk into the item
        elif length == _UNDEFINED:
            if not is_sequence:
                return None
            depth, length = depth + 1, 0
        position = position + head + length if head and depth >= 0 else None
    return None


def _dataset_start(data: bytes) -> int | None:
    """Return where the dataset begins, by the group length of the file meta information (PS3.10 7.1)."""
    if len(data) < 144 or data[128:132] != b"DICM":
        return None
    group, element, vr, length, value = _GROUP_LENGTH.unpack_from(data, 132)
    return 144 + value if (group, element, vr, length) == (2, 0, b"UL", 4) else None


def _element(data: bytes, at: int, implicit: bool) -> tuple[int, int, int, bool]:
    """Return tag, value length, size of the head (0 where it cannot be read) and whether it may be a sequence."""
    group, element = struct.unpack_from("<HH", data, at)
    tag = group << 16 | element
    if implicit or tag in _DELIMITERS:
        return tag, struct.unpack_from("<I", data, at + 4)[0], 8, True
    vr = data[at + 4 : at + 6]
    if vr in SHORT_VRS:
        return tag, struct.unpack_from("<H", data, at + 6)[0], 8, False
    if vr in LONG_VRS and len(data) - at >= 12:
        # UN of undefined length holds Implicit VR (PS3.5 6.2.2): left to the caller.
        return tag, struct.unpack_from("<I", data, at + 8)[0], 12, vr == b"SQ"
    return tag, 0, 0, False
