"""Values of one instance's header by path, decoded; only attributes that were named beforehand are ever read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from volume.text import decoded

_MOST_ITEMS = 16
"""Items of a sequence that are looked at: no request has more reasons."""
_MOST_BYTES = 16384


class Attributes:
    """Some attributes of one dataset.

    A path is a keyword after those of the sequences that it lies in, joined by dots.

    Parameters
    ----------
    path
        Part 10 file.
    wanted
        Paths that may be asked for.
    """

    def __init__(self, path: Path, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self.notes: dict[str, str] = {}
        """What was odd about an attribute's encoding, by path; no value is quoted."""
        tags = sorted({_tag(item.split(".")[0]) for item in wanted} | {_tag("SpecificCharacterSet")})
        self._dataset = Dataset()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's warnings quote values
                self._dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
        except Exception as error:
            self.notes["the header"] = f"cannot be read ({type(error).__name__})"

    def texts(self, path: str) -> tuple[str, ...]:
        """Return the values of an attribute that are not empty, of all items of the sequences above it."""
        self._require(path)
        *sequences, keyword = path.split(".")
        found = [
            value for item, charset in self._items(sequences) for value in self._values(item, keyword, charset, path)
        ]
        return tuple(dict.fromkeys(found))

    def first(self, path: str) -> str:
        """Return the first value, or an empty text."""
        return next(iter(self.texts(path)), "")

    def whole(self, path: str) -> tuple[str, ...]:
        """Return one text for each item: in descriptions a backslash is a character or a fault, no separator."""
        self._require(path)
        *sequences, keyword = path.split(".")
        found = (self._text(item, keyword, charset, path) for item, charset in self._items(sequences))
        return tuple(dict.fromkeys(text.replace("\\", ", ") for text in found if text))

    def numbers(self, path: str) -> tuple[float, ...]:
        """Return numbers; nothing where one value is none."""
        try:
            found = tuple(float(text) for text in self._each(path))
        except ValueError:
            return ()
        return found if all(map(math.isfinite, found)) else ()

    def number(self, path: str) -> float | None:
        """Return one number."""
        return next(iter(self.numbers(path)), None)

    def day(self, path: str) -> date | None:
        """Return a date (DA, or the begin of a DT)."""
        text = self.first(path).replace(".", "").replace("-", "")
        try:
            return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if text[:8].isdigit() else None
        except ValueError:
            return None

    def codes(self, path: str) -> tuple[tuple[str, str, str], ...]:
        """Return value, scheme and meaning of each item of a code sequence (PS3.3 8.8)."""
        self._require(path)
        found = []
        for item, charset in self._items(path.split(".")):
            said = [
                self._text(item, keyword, charset, f"{path}.{keyword}")
                for keyword in ("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning")
            ]
            found.append((said[0] or said[1], said[2], said[3]))
        return tuple(found)

    def _require(self, path: str) -> None:
        if path not in self._wanted:
            raise KeyError(f"{path} is not among the attributes that are read")

    def _each(self, path: str) -> tuple[str, ...]:
        self._require(path)
        *sequences, keyword = path.split(".")
        for item, charset in self._items(sequences):
            values = self._values(item, keyword, charset, path)
            if values:
                return values
        return ()

    def _items(self, sequences: list[str]) -> Iterator[tuple[Dataset, tuple[str, ...]]]:
        yield from self._below(self._dataset, _charset(self._dataset, ()), sequences)

    def _below(
        self, ds: Dataset, charset: tuple[str, ...], sequences: list[str]
    ) -> Iterator[tuple[Dataset, tuple[str, ...]]]:
        if not sequences:
            yield ds, charset
            return
        try:
            items = _items_of(ds, sequences[0])
        except Exception as error:
            self.notes[sequences[0]] = f"cannot be read ({type(error).__name__})"
            return
        for item in items[:_MOST_ITEMS]:
            # An item may declare a set of its own (PS3.3 C.12.1.1.2).
            yield from self._below(item, _charset(item, charset), sequences[1:])

    def _values(self, ds: Dataset, keyword: str, charset: tuple[str, ...], path: str) -> tuple[str, ...]:
        text = self._text(ds, keyword, charset, path)
        return tuple(part for value in text.split("\\") if (part := value.strip(" \0")))

    def _text(self, ds: Dataset, keyword: str, charset: tuple[str, ...], path: str) -> str:
        raw = _raw(ds, keyword)
        if isinstance(raw, str):
            return raw.strip(" \0")
        text, note = decoded(raw[:_MOST_BYTES].rstrip(b" \0"), charset)
        if note:
            self.notes[path] = note
        return text.strip(" \0")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no attribute called {keyword}")
    return tag


def _items_of(ds: Dataset, keyword: str) -> list[Dataset]:
    tag = _tag(keyword)
    if tag not in ds:
        return []
    element = ds[tag]
    return list(element.value or ()) if element.VR == "SQ" else []


def _raw(ds: Dataset, keyword: str) -> bytes | str:
    """Return a value as it stands in the file; as text where somebody has decoded it already."""
    element: RawDataElement | DataElement | None = ds.get_item(_tag(keyword), keep_deferred=True)
    if element is None or element.value is None:
        return b""
    if isinstance(element, RawDataElement):
        return bytes(element.value)
    value = element.value
    if isinstance(value, bytes):
        return value
    return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))


def _charset(ds: Dataset, above: tuple[str, ...]) -> tuple[str, ...]:
    raw = _raw(ds, "SpecificCharacterSet")
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    return tuple(term.strip(" \0") for term in text.split("\\")) if text.strip(" \0") else above
