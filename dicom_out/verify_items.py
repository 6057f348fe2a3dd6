"""Nested items of an object, read from the bytes of its file.

A segmentation has ten thousands of nested items. What is asked of each is little, and a dataset for each would take
most of the time of a check.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from domain.errors import VerificationFailed

_ITEM = b"\xfe\xff\x00\xe0"
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_HEAD = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")


def sequence_in(ds: Dataset, tag: int) -> bytes:
    """Return the value of a sequence of a dataset as the file has it; empty where there is none.

    Raises
    ------
    VerificationFailed
        It is not written as this gateway writes it, with a defined length.
    """
    if tag not in ds:
        return b""
    item = cast("DataElement | RawDataElement", ds.get_item(Tag(tag), keep_deferred=True))
    if not isinstance(item, RawDataElement) or item.length == _UNDEFINED:
        raise VerificationFailed("A sequence of an object has no defined length.")
    if item.value is not None:
        return item.value
    with open(str(ds.filename), "rb") as file:
        file.seek(item.value_tell)
        return file.read(item.length)


def items_of(value: bytes) -> Iterator[bytes]:
    """Yield the items of a sequence's value.

    Raises
    ------
    VerificationFailed
        They have no defined lengths.
    """
    start = 0
    while start < len(value):
        end = start + 8 + int.from_bytes(value[start + 4 : start + 8], "little")
        if value[start : start + 4] != _ITEM or end > len(value):
            raise VerificationFailed("An item of an object is cut short, or has no defined length.")
        yield value[start + 8 : end]
        start = end


def elements_of(item: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and bytes, from the tag on, of each element (PS3.5 Section 7.1.2).

    Raises
    ------
    VerificationFailed
        They have no defined lengths.
    """
    start, size = 0, len(item)
    while start < size:
        if start + 8 > size:
            raise VerificationFailed("An element of an object is cut short.")
        group, number, vr, length = _HEAD.unpack_from(item, start)
        end = start + 8 + length
        if vr in _LONG:
            end = start + 12 + (_LENGTH.unpack_from(item, start + 8)[0] if start + 12 <= size else size)
        if end > size:
            raise VerificationFailed("An element of an object is cut short, or has no defined length.")
        yield group << 16 | number, item[start:end]
        start = end


def children_of(value: bytes) -> Iterator[dict[int, bytes]]:
    """Yield the elements, by tag, of each item of a sequence's value."""
    return (dict(elements_of(item)) for item in items_of(value))


def value_of(element: bytes) -> bytes:
    """Return the value of an element."""
    return element[12 if element[4:6] in _LONG else 8 :]


def text_of(element: bytes) -> str:
    """Return the text of an element of the default character repertoire, e.g. a UID."""
    return value_of(element).decode("ascii").strip(" \0")
