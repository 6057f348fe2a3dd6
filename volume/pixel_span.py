"""Finds the pixels of a Part 10 file without parsing the dataset."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from volume.part10 import LONG_VRS, SHORT_VRS

_WINDOW: Final = 1 << 14  # most headers fit into the first read
_PIXEL_DATA: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = frozenset({_ITEM, _ITEM_END, _SEQUENCE_END})
_EXTENDED_OFFSET_TABLE: Final = 0x7FE00001
_UNDEFINED: Final = 0xFFFFFFFF
_HEADS: Final = {True: struct.Struct("<HHI"), False: struct.Struct("<HH2sHI")}
"""Of PixelData, implicit and explicit."""
_LARGEST_FRAME: Final = 64 << 20
_END_OF_IMAGE: Final = b"\xff\xd9"
"""Of JPEG, JPEG-LS, JPEG 2000 and HTJ2K."""
_GROUP_LENGTH = struct.Struct("<HH2sHI")


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """Where the value of PixelData lies in the file, in bytes; ``length`` is what is really there."""

    offset: int
    length: int


def read_recorded(fd: int, offset: int, buffer: memoryview, *, implicit: bool) -> bool:
    """Fill ``buffer`` from the start of native PixelData whose value begins at ``offset``, as intake found it.

    ``False`` where that is not so, or there is less than ``buffer`` holds, which may have been written to then.
    """
    head = bytearray(_HEADS[implicit].size)
    if offset < len(head) or os.preadv(fd, [head, buffer], offset - len(head)) < len(head) + len(buffer):
        return False
    length = _length_in(head, implicit=implicit)
    return length is not None and len(buffer) <= length < _UNDEFINED


def recorded_span(fd: int, offset: int, *, implicit: bool) -> PixelSpan | None:
    """Return the span of native PixelData whose value begins at ``offset``, as intake found it.

    ``None`` where the head of PixelData does not stand right before it: then this is not the file that intake walked.
    """
    length = _length_before(fd, offset, implicit=implicit)
    if length is None or length == _UNDEFINED:
        return None
    return PixelSpan(offset, min(length, max(os.fstat(fd).st_size - offset, 0)))


def pixel_span(fd: int, *, implicit: bool) -> PixelSpan | None:
    """Return where native PixelData of an open little endian Part 10 file lies.

    ``None`` where that cannot be said with certainty (no group length in the file meta information, an unknown VR, a
    sequence written as UN) or the pixels are encapsulated: the caller then parses the file. A sequence of undefined
    length is walked through, one of defined length is skipped. Sixteen kilobytes are held at a time.
    """
    found = _found(fd, implicit=implicit)
    if found is None or found[1] == _UNDEFINED:
        return None
    offset, length = found
    return PixelSpan(offset, min(length, os.fstat(fd).st_size - offset))


def sole_frame(fd: int, offset: int | None) -> bytes | None:
    """Return the fragments of encapsulated PixelData of an open file, one after another: all of its only frame.

    ``None`` where they cannot be found with certainty, are damaged, or are more than 64 MiB.

    Parameters
    ----------
    offset
        Where intake saw the value of PixelData begin; ``None`` where that is not known.
    """
    if offset is None or _length_before(fd, offset, implicit=False) != _UNDEFINED:
        found = _found(fd, implicit=False)
        if found is None or found[1] != _UNDEFINED:
            return None
        offset = found[0]
    data = os.pread(fd, _LARGEST_FRAME, offset)
    pieces: list[bytes] = []
    at = 0
    while len(data) - at >= 8:
        tag, length, head, _ = _element(data, at, implicit=True)
        at += head
        if tag == _SEQUENCE_END:
            return b"".join(pieces[1:])  # the first item is the Basic Offset Table (PS3.5 A.4)
        if tag != _ITEM or length > len(data) - at:
            break
        pieces.append(data[at : at + length])
        at += length
    return None


def frame_spans(fd: int, count: int) -> list[tuple[PixelSpan, ...]] | None:
    """Return where the fragments of each of ``count`` frames lie in an open file, found in one pass over their heads.

    Which fragments are a frame is said by the Extended or the Basic Offset Table; without them each is one, or a
    frame ends with a fragment that ends an image (PS3.5 A.4, PS3.3 C.7.6.3.1.8). ``None`` where that does not go up,
    or PixelData is not found with certainty.
    """
    found, extended = _encapsulated(fd)
    items = None if found is None else _items(fd, found)
    if not items:
        return None
    table, *fragments = items
    if extended is not None:
        starts = _where(fd, extended, fragments, "Q")
    elif table.length:
        starts = _where(fd, table, fragments, "I")
    else:
        starts = _starts(fd, fragments, count)
    bounds = [*starts, len(fragments)]
    if starts[:1] != [0] or len(starts) != count or any(a >= b for a, b in pairwise(bounds)):
        return None
    return [tuple(fragments[a:b]) for a, b in pairwise(bounds)]


def _encapsulated(fd: int) -> tuple[int | None, PixelSpan | None]:
    """Return where the items of PixelData begin, ``None`` if that is not certain, and the Extended Offset Table."""
    extended: PixelSpan | None = None
    for element in _top_level(fd, implicit=False):
        if element is None:
            break
        tag, offset, length = element
        if tag == _EXTENDED_OFFSET_TABLE:
            extended = PixelSpan(offset, length)
        if tag == _PIXEL_DATA:
            return (offset if length == _UNDEFINED else None), extended
    return None, None


def _where(fd: int, table: PixelSpan, fragments: Sequence[PixelSpan], kind: str) -> list[int]:
    """Return which fragments begin a frame by a table of offsets from the first; -1 where none begins there."""
    first = fragments[0].offset if fragments else 0
    at = {fragment.offset - first: k for k, fragment in enumerate(fragments)}
    size = struct.calcsize(kind)
    length = min(table.length, size * len(fragments))
    offsets = struct.unpack(f"<{length // size}{kind}", os.pread(fd, length, table.offset)[: length // size * size])
    return [at.get(offset, -1) for offset in offsets]


def _starts(fd: int, fragments: Sequence[PixelSpan], count: int) -> list[int]:
    """Return which fragments begin a frame where no table says so; another number than ``count`` where none can."""
    if len(fragments) == count:
        return list(range(count))
    ends = [k for k, span in enumerate(fragments) if _END_OF_IMAGE in _tail(fd, span)]
    return [0, *(k + 1 for k in ends[:-1])] if ends[-1:] == [len(fragments) - 1] else []


def _tail(fd: int, span: PixelSpan) -> bytes:
    length = min(span.length, 10)
    return os.pread(fd, length, span.offset + span.length - length)


def _items(fd: int, offset: int) -> list[PixelSpan] | None:
    """Return the values of the items that begin at ``offset``; ``None`` unless they end as they should."""
    items: list[PixelSpan] = []
    size = os.fstat(fd).st_size
    while offset + 8 <= size:
        tag, length, head, _ = _element(os.pread(fd, 8, offset), 0, implicit=True)
        offset += head
        if tag == _SEQUENCE_END:
            return items
        if tag != _ITEM or length > size - offset:
            break
        items.append(PixelSpan(offset, length))
        offset += length
    return None


def _length_before(fd: int, offset: int, *, implicit: bool) -> int | None:
    """Return the length in the head of PixelData that ends at ``offset``; ``None`` where there is none."""
    size = _HEADS[implicit].size
    found = os.pread(fd, size, offset - size) if offset > size else b""
    return _length_in(found, implicit=implicit) if len(found) == size else None


def _length_in(head: bytes | bytearray, *, implicit: bool) -> int | None:
    """Return the length in the head of PixelData; ``None`` where it is another's."""
    group, element, *vr, length = _HEADS[implicit].unpack(head)
    is_head = group << 16 | element == _PIXEL_DATA and vr in ([], [b"OW", 0], [b"OB", 0])
    return int(length) if is_head else None


def _found(fd: int, *, implicit: bool) -> tuple[int, int] | None:
    """Return where the value of PixelData begins and the length that is written; ``None`` where it is not found.

    What follows native pixels is walked too: a second PixelData would be the one that others read.
    """
    found: tuple[int, int] | None = None
    for element in _top_level(fd, implicit=implicit):
        if element is None:
            return None
        tag, offset, length = element
        if tag == _PIXEL_DATA:
            if found:
                return None
            found = offset, length
            if length == _UNDEFINED:
                break
    return found


def _top_level(fd: int, *, implicit: bool) -> Iterator[tuple[int, int, int] | None]:
    """Yield tag, offset of the value and written length of each attribute; ``None`` where it gets uncertain."""
    size = os.fstat(fd).st_size
    data, start = os.pread(fd, _WINDOW, 0), 0
    begin, depth = _dataset_start(data), 0
    if begin is None or (implicit and data[begin + 4 : begin + 6] in LONG_VRS | SHORT_VRS):
        yield None  # explicit, whatever the transfer syntax says
        return
    position = begin
    while position < size:
        if position + 12 > start + len(data):
            data, start = os.pread(fd, _WINDOW, position), position
        if len(data) - (position - start) < 8:
            break
        tag, length, head, may_be_sequence = _element(data, position - start, implicit)
        position += head
        if depth == 0:
            yield tag, position, length
        if tag in _DELIMITERS:
            depth -= tag == _SEQUENCE_END
            length = 0  # walk into the item
        elif length == _UNDEFINED and may_be_sequence:
            depth, length = depth + 1, 0
        if length == _UNDEFINED or not head or depth < 0:
            break
        position += length
    else:
        return
    yield None


def _dataset_start(data: bytes) -> int | None:
    """Return where the dataset begins: where the group length of the file meta information and its elements agree."""
    if len(data) < 144 or data[128:132] != b"DICM":
        return None
    group, element, vr, length, value = _GROUP_LENGTH.unpack_from(data, 132)
    if (group, element, vr, length) != (2, 0, b"UL", 4):
        return None
    position, end = 144, 144 + value
    while position < end and position + 12 <= len(data):
        tag, length, head, _ = _element(data, position, implicit=False)
        if tag >> 16 != 2 or not head:
            return None
        position += head + length
    # PS3.10 7.1: nothing of group 2 comes after what the length counts.
    is_whole = position == end and data[position : position + 2] != b"\x02\x00"
    return end if is_whole else None


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
