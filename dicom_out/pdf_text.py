"""The text of a PDF, read back: enough of PDF (ISO 32000) for what the pages of reports consist of.

It knows nothing of how pages are laid out, only the file's objects, streams, fonts and text operators.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_OBJECT = re.compile(rb"(\d+) 0 obj\s(.*?)\sendobj", re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
_SHOWN = re.compile(rb"/(\S+) [-\d.]+ Tf|\(((?:\\.|[^\\()])*)\)\s*Tj|(T\*|ET)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(.))", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


class NotReadable(ValueError):
    """The bytes are no PDF that this can read."""


@dataclass(frozen=True, slots=True)
class PdfText:
    """What the pages say: words with one space between them."""

    pages: tuple[str, ...]

    @property
    def whole(self) -> str:
        """The text of all pages."""
        return " ".join(self.pages)


def text_of(pdf: bytes) -> PdfText:
    """Return the text of each page.

    Raises
    ------
    NotReadable
        The file is no PDF, is cut off, or lacks an object.
    """
    if not pdf.startswith(b"%PDF-") or b"%%EOF" not in pdf[-64:]:
        raise NotReadable("it is no whole PDF")
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    _check_index(pdf)
    try:
        tables = _fonts(objects)
        return PdfText(tuple(_page(objects, body, tables) for body in _pages(objects)))
    except (KeyError, IndexError, ValueError, zlib.error) as error:
        raise NotReadable("an object of it is missing or damaged") from error


def _check_index(pdf: bytes) -> None:
    """The table of objects must point at them: readers go by it."""
    found = re.search(rb"startxref\s+(\d+)\s+%%EOF", pdf)
    if found is None or pdf[int(found[1]) : int(found[1]) + 4] != b"xref":
        raise NotReadable("its table of objects is not where it says")
    for number, offset in enumerate(re.findall(rb"(\d{10}) \d{5} n", pdf[int(found[1]) :]), start=1):
        if not pdf[int(offset) :].startswith(f"{number} 0 obj".encode()):
            raise NotReadable("its table of objects is wrong")


def _pages(objects: dict[int, bytes]) -> Iterator[bytes]:
    tree = next(body for body in objects.values() if re.search(rb"/Type /Pages\b", body))
    kids = re.search(rb"/Kids \[(.*?)\]", tree, re.DOTALL)
    for number in re.findall(rb"(\d+) 0 R", kids[1] if kids else b""):
        yield objects[int(number)]


def _fonts(objects: dict[int, bytes]) -> dict[str, dict[int, str]]:
    """Return what the bytes of each font mean, by its name in the pages."""
    tables: dict[str, dict[int, str]] = {}
    for body in objects.values():
        for name, number in re.findall(rb"/(F\d+(?:\+\d+)?) (\d+) 0 R", body):
            font = objects[int(number)]
            mapped = re.search(rb"/ToUnicode (\d+) 0 R", font)
            tables[name.decode()] = _mapping(_stream(objects[int(mapped[1])])) if mapped else {}
    return tables


def _mapping(cmap: bytes) -> dict[int, str]:
    """Return the characters of a ToUnicode table."""
    table: dict[int, str] = {}
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", cmap, re.DOTALL):
        for code, value in re.findall(rb"<([0-9A-Fa-f]+)>\s*<([0-9A-Fa-f]+)>", block):
            table[int(code, 16)] = _utf16(value)
    for block in re.findall(rb"beginbfrange(.*?)endbfrange", cmap, re.DOTALL):
        for first, last, values in re.findall(
            rb"<([0-9A-Fa-f]+)>\s*<([0-9A-Fa-f]+)>\s*(\[.*?\]|<[^>]+>)", block, re.DOTALL
        ):
            listed = re.findall(rb"<([0-9A-Fa-f]+)>", values)
            for place, code in enumerate(range(int(first, 16), int(last, 16) + 1)):
                start = _utf16(listed[place] if values.startswith(b"[") else listed[0])
                table[code] = start if values.startswith(b"[") else chr(ord(start) + place)
    return table


def _utf16(digits: bytes) -> str:
    return bytes.fromhex(digits.decode()).decode("utf-16-be")


def _stream(body: bytes) -> bytes:
    found = _STREAM.search(body)
    if found is None:
        raise ValueError("no stream")
    data = found[1]
    if b"/ASCII85Decode" in body:
        data = base64.a85decode(data.strip().removesuffix(b"~>"))
    return zlib.decompress(data) if b"/FlateDecode" in body else data


def _page(objects: dict[int, bytes], page: bytes, tables: dict[str, dict[int, str]]) -> str:
    contents = re.search(rb"/Contents (\d+) 0 R", page)
    if contents is None:
        raise ValueError("no contents")
    words, table = [], dict[int, str]()
    for font, shown, breaks in _SHOWN.findall(_stream(objects[int(contents[1])])):
        if font:
            table = tables[font.decode()]
        elif breaks:
            words.append(" ")
        else:
            words.append(_decoded(_unescaped(shown), table))
    return " ".join("".join(words).split())


def _unescaped(text: bytes) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes([int(found[1], 8) & 0xFF])
        return _NAMED.get(found[2], found[2])

    return _ESCAPE.sub(plain, text)


def _decoded(text: bytes, table: dict[int, str]) -> str:
    """Return shown bytes as characters: by the font's own table, or WinAnsiEncoding, as Helvetica has it."""
    return "".join(table[byte] for byte in text) if table else text.decode("cp1252", "replace")
