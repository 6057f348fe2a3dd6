"""Character sets of source headers (PS3.3 C.12.1.1.2), as found in the wild."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.charset import python_encoding

UNICODE = ("ISO_IR 192",)
LATIN_1 = ("ISO_IR 100",)
_ALONE = frozenset({"ISO_IR 192", "GB18030", "GBK"})
"""Encodings without code extensions (PS3.5 Section 6.1.2.5.4)."""

_SPELLINGS = (
    (re.compile(r"ISO[ _-]?IR[ _-]?(\d+)"), "ISO_IR {}"),
    (re.compile(r"ISO[ _-]?2022[ _-]?IR[ _-]?(\d+)"), "ISO 2022 IR {}"),
    (re.compile(r"UTF[ _-]?(8)"), "ISO_IR 192"),
)


def normalised(values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the defined terms that ``values`` mean, or ``None`` where they mean the default repertoire or nothing.

    Peers write ``ISO-IR 100`` and ``UTF-8``, and mix terms with and without code extensions; an empty value is the
    default repertoire, which may only stand first.
    """
    terms = tuple(_term(value) for value in values)
    if not any(terms) or terms == ("ISO_IR 6",) or any(term not in python_encoding for term in terms):
        return None
    if terms[0] in _ALONE or len(terms) == 1:
        return terms[:1]
    extended = tuple(term.replace("ISO_IR ", "ISO 2022 IR ") for term in terms)
    return None if "" in extended[1:] or not _ALONE.isdisjoint(terms) else extended


def _term(value: str) -> str:
    value = value.strip().upper()
    for pattern, term in _SPELLINGS:
        match = pattern.fullmatch(value)
        if match:
            return term.format(match[1])
    return value


def undeclared(texts: Sequence[bytes]) -> tuple[str, ...] | None:
    """Return the character set to declare for bytes that came without a usable one; ``None`` where ASCII will do.

    The bytes themselves are never changed: UTF-8 is not mistaken for anything else, and every byte is a character of
    ISO_IR 100, so that at least no reader fails.
    """
    joined = b"\n".join(texts)
    if joined.isascii():
        return None
    try:
        joined.decode("utf-8")
    except UnicodeDecodeError:
        return LATIN_1
    return UNICODE
