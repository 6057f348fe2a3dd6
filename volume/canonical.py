"""Values as they are whatever the encoding, and the digest of a dataset made of them."""

from __future__ import annotations

import hashlib
import struct
from array import array
from operator import itemgetter

TEXT_VRS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
WORD_BYTES = {
    **dict.fromkeys((b"AT", b"OW", b"SS", b"US"), 2),
    **dict.fromkeys((b"FL", b"OF", b"OL", b"SL", b"UL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
"""Bytes of a word that big endian turns round, by VR; other VRs have single bytes."""
_WORD_CODES = {2: "H", 4: "I", 8: "Q"}
"""Type codes of ``array`` by bytes a word."""
BRIEF = 256
"""Values up to this many bytes go into the digest as they are, longer ones as their own digest."""
# Length to End, Data Set Trailing Padding; the offset tables follow from the fragments (PS3.3 C.7.6.3.1.8).
IGNORED = frozenset({0x00080001, 0xFFFCFFFC, 0x7FE00001, 0x7FE00002})
_HEAD = struct.Struct("<II").pack
_PRINTABLE = bytes((9, 10, 12, 13, 27, *range(32, 256)))


def digest_of(parts: list[tuple[int, bytes]]) -> bytes:
    """Digest the attributes in the order of their tags, which some writers do not keep."""
    parts.sort(key=itemgetter(0))
    return hashlib.sha256(b"".join([_HEAD(tag, len(token)) + token for tag, token in parts])).digest()


def canonical(value: bytes, known: str | None) -> bytes:
    """Return a value without its padding (PS3.5 6.2)."""
    if known in TEXT_VRS:
        return value.rstrip(b" \0")
    if known is None:
        stripped = value.rstrip(b" \0")
        # A private attribute's VR is lost in Implicit VR: what looks like text is padded like text.
        if stripped and not stripped.translate(None, _PRINTABLE):
            return stripped
    return value + b"\0" if len(value) % 2 else value


def swapped(value: bytes | memoryview, word: int) -> bytes:
    whole = len(value) // word * word
    words = array(_WORD_CODES[word])
    words.frombytes(value[:whole])
    words.byteswap()
    return words.tobytes() + bytes(value[whole:])
