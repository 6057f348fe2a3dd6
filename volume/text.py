"""Text of a header by its character set (PS3.3 C.12.1.1.2, PS3.5 6.1), read whatever the declaration is worth."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pydicom.charset import python_encoding

from volume.charset import normalised

_ESC = 0x1B
_RESETTING = frozenset(b"\t\n\f\r\\^=")
"""After these the initial sets hold again (PS3.5 6.1.2.5.3)."""
_ASCII = "ascii"
_KANA = "kana"
_ROMAN = "roman"

# Escape sequence without ESC: the half that it designates (0 or 1), and the set (PS3.3 Tables C.12-3 and C.12-4).
_ESCAPES: dict[bytes, tuple[int, str]] = {
    b"(B": (0, _ASCII), b"(J": (0, _ROMAN), b")I": (1, _KANA),
    b"$B": (0, "jis0208"), b"$@": (0, "jis0208"), b"$(D": (0, "jis0212"), b"$)C": (1, "euc_kr"),
    b"$)A": (1, "gb2312"),
    b"-A": (1, "latin_1"), b"-B": (1, "iso8859_2"), b"-C": (1, "iso8859_3"), b"-D": (1, "iso8859_4"),
    b"-F": (1, "iso8859_7"), b"-G": (1, "iso8859_6"), b"-H": (1, "iso8859_8"), b"-L": (1, "iso8859_5"),
    b"-M": (1, "iso8859_9"), b"-T": (1, "tis_620"),
}  # fmt: skip
_TWO_BYTES = frozenset({"jis0208", "jis0212", "euc_kr", "gb2312"})
_HIGH_HALF = {
    "ISO_IR 13": _KANA, "ISO_IR 100": "latin_1", "ISO_IR 101": "iso8859_2", "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4", "ISO_IR 126": "iso8859_7", "ISO_IR 127": "iso8859_6", "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5", "ISO_IR 148": "iso8859_9", "ISO_IR 166": "tis_620", "ISO_IR 149": "euc_kr",
    "ISO_IR 58": "gb2312",
}  # fmt: skip
_LATIN = frozenset({"latin_1", "iso8859", "iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_148"})
_UNICODE = ("ISO_IR 192",)
_ODD = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
"""No text holds these: its character set is another one."""


def decoded(value: bytes, declared: Sequence[str]) -> tuple[str, str]:
    """Return a text in Unicode's composed form, and what was odd about its encoding; never fails.

    Parameters
    ----------
    value
        All values of the attribute; the caller splits them at backslashes afterwards, since a byte 5C may be half
        of a character (PS3.5 6.1.2.3).
    declared
        The values of SpecificCharacterSet.
    """
    if value.isascii() and _ESC not in value:
        return value.decode("ascii"), ""
    text, note = _read(value, declared)
    if "\ufffd" in text and not note:
        note = "some characters do not belong to the declared SpecificCharacterSet"
    return unicodedata.normalize("NFC", text), note


def _read(value: bytes, declared: Sequence[str]) -> tuple[str, str]:
    terms = normalised(declared)
    if _ESC in value and terms != _UNICODE:
        return _switching(value, terms or ())
    if terms is None:
        absent = not any(term.strip() not in ("", "ISO_IR 6", "ISO 2022 IR 6") for term in declared)
        return _guessed(value, "SpecificCharacterSet is absent" if absent else "SpecificCharacterSet is unknown")
    if len(terms) > 1:
        return _switching(value, terms)
    return _by_one(value, terms[0])


def _by_one(value: bytes, term: str) -> tuple[str, str]:
    """Decode by one set; text that is UTF-8 and would be nonsense by the declared set is read as UTF-8."""
    encoding = python_encoding[term]
    is_unicode = (term,) == _UNICODE
    try:
        text = value.decode(encoding)
    except UnicodeDecodeError as error:
        if is_unicode and error.end >= len(value) and error.start >= len(value) - 3:
            return value[: error.start].decode(encoding), "the last character is cut off"
        if is_unicode:
            return _single(value, "latin_1"), "not UTF-8 as SpecificCharacterSet says; read as ISO_IR 100"
        text = value.decode(encoding, "replace")
    if not is_unicode and (encoding in _LATIN or _ODD.search(text)):
        unicode = _unicode(value)
        if unicode is not None:
            return unicode, "not in the declared SpecificCharacterSet; read as UTF-8"
    return text, ""


def _guessed(value: bytes, why: str) -> tuple[str, str]:
    unicode = _unicode(value)
    if unicode is not None:
        return unicode, f"{why}; read as UTF-8"
    return _single(value, "latin_1"), f"{why}; read as ISO_IR 100, which may be wrong"


def _unicode(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _single(value: bytes, encoding: str) -> str:
    return value.decode(encoding, "replace")


# -- ISO 2022 -------------------------------------------------------------------------------------------------------


def _switching(value: bytes, terms: Sequence[str]) -> tuple[str, str]:
    """Decode with code extensions: two halves, each with a set that escape sequences change."""
    known = [_HIGH_HALF[name] for term in terms if (name := term.replace("ISO 2022 IR", "ISO_IR")) in _HIGH_HALF]
    # Korean and Chinese files often leave the escape sequence out after the first line or name component.
    initial = (_ASCII, known[0] if known else "")
    declared = {_ASCII, _ROMAN, *known} | (
        {"jis0208", "jis0212"} if any(t[-2:] in ("87", "59") for t in terms) else set()
    )
    halves, at, out, undeclared = list(initial), 0, [], False
    while at < len(value):
        byte = value[at]
        if byte == _ESC:
            length, change = _escape(value, at + 1)
            if change is not None:
                halves[change[0]] = change[1]
                undeclared |= change[1] not in declared
            at += 1 + length
        elif byte in _RESETTING and halves[0] not in _TWO_BYTES:
            halves = list(initial)
            out.append(chr(byte))
            at += 1
        else:
            taken = 2 if byte > 0x20 and halves[byte >> 7] in _TWO_BYTES else 1
            out.append(_character(value[at : at + taken], halves[byte >> 7]))
            at += taken
    return "".join(out), "uses character sets that SpecificCharacterSet does not declare" if undeclared else ""


def _escape(value: bytes, at: int) -> tuple[int, tuple[int, str] | None]:
    """Return the length of an escape sequence after ESC and what it changes; unknown ones change nothing."""
    for length in (3, 2):
        change = _ESCAPES.get(value[at : at + length])
        if change is not None:
            return length, change
    return 0, None


def _character(code: bytes, charset: str) -> str:
    high = bytes(byte | 0x80 for byte in code)
    try:
        if charset in (_ASCII, _ROMAN) or code == b" ":
            return code.decode("ascii")
        if charset == _KANA:
            return code.decode("shift_jis")
        if charset in ("jis0208", "jis0212"):
            return ((b"\x8f" if charset == "jis0212" else b"") + high).decode("euc_jp")
        return high.decode(charset or "ascii") if code[0] >= 0x80 else code.decode("ascii")
    except UnicodeDecodeError:
        return "\ufffd"
