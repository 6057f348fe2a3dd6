"""The attributes that most headers are made of, taken in one loop: short, known, Explicit VR Little Endian."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import MutableMapping
from typing import Final

from pydicom.datadict import DicomDictionary

from volume.canonical import BRIEF, IGNORED, TEXT_VRS
from volume.header import PIXEL_DATA, WANTED
from volume.part10 import SHORT_VRS, Window
from volume.private import Encoded

_HEAD = struct.Struct("<HH2sH").unpack_from
_HEAD_BYTES: Final = 8
_TEXT, _OTHER = True, False
_VRS = {vr: vr.decode("ascii") for vr in SHORT_VRS}
_KINDS: dict[int, bool] = {
    tag: entry[0] in TEXT_VRS
    for tag, entry in DicomDictionary.items()
    if entry[0] != "SQ" and tag >> 16 != 0xFFFE and tag not in PIXEL_DATA
}
"""Whether it is text, of every attribute that can be taken here."""


def take_run(
    window: Window, position: int, limit: int, parts: list[tuple[int, bytes]], raw: MutableMapping[int, Encoded]
) -> int:
    """Take the attributes from ``position`` on as long as each is of that kind and in memory; return where they end.

    What it adds to ``parts`` (of the digest) and ``raw`` (for the header) is what ``digest._Reader`` adds for each of
    them, which takes five times as long.
    """
    data, start = window.data, window.start
    index, end = position - start, min(len(data), limit - start)
    if index < 0:
        return position
    while index + _HEAD_BYTES <= end:
        group, number, vr, length = _HEAD(data, index)
        tag = group << 16 | number
        text, known, following = _KINDS.get(tag), _VRS.get(vr), index + _HEAD_BYTES + length
        if text is None or known is None or following > end:
            break
        value = data[index + _HEAD_BYTES : following]
        index = following
        if tag in WANTED:
            raw[tag] = (value, known, True)
        if number and tag not in IGNORED:
            parts.append((tag, _token(value, text=text)))
    return start + index


def _token(value: bytes, *, text: bool) -> bytes:
    """Return the share of a value in the digest, less its padding."""
    if not value:
        return b"V"
    if text:
        value = value.rstrip(b" \0")
    elif len(value) % 2:
        value += b"\0"
    return b"V" + value if len(value) <= BRIEF else b"L" + hashlib.sha256(value).digest()
