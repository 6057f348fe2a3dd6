"""Attributes of untrusted datasets, read forgivingly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.sr._snomed_dict import mapping

from domain.codes import Code
from domain.errors import DrawingRefused
from domain.volume import FloatArray
from volume.drawings.sketch import ImageRef

MOST_NUMBERS = 3_000_000
"""Coordinates in one drawing."""
MOST_SHAPES = 10_000
"""Of one object: a few bytes can say that many shapes are on many images."""
_TO_SCT: dict[str, str] = mapping["SRT"]


def items(ds: Dataset, keyword: str) -> Iterator[Dataset]:
    """Yield the items of a sequence; none where it is absent or no sequence."""
    found = ds.get(keyword)
    if isinstance(found, Sequence) and not isinstance(found, str):
        yield from (item for item in found if isinstance(item, Dataset))


def first(ds: Dataset, keyword: str) -> Dataset:
    """Return the first item of a sequence, or an empty one."""
    return next(items(ds, keyword), Dataset())


def text(ds: Dataset, keyword: str, most: int = 64) -> str:
    """Return a value as one line of text, cut to ``most`` characters; empty where there is none."""
    value = ds.get(keyword)
    return " ".join(str(value).translate(_CONTROLS).split())[:most] if value not in (None, "") else ""


_CONTROLS = dict.fromkeys((*range(32), 127), " ")


def number(ds: Dataset, keyword: str) -> int | None:
    """Return a whole number."""
    try:
        return int(str(ds.get(keyword)))
    except ValueError:
        return None


def numbers(ds: Dataset, keyword: str, size: int) -> FloatArray:
    """Return coordinates, shape ``(n, size)``; empty where they are none or not finite."""
    value: Any = ds.get(keyword)
    if value is None or isinstance(value, str):
        return np.empty((0, size))
    if len(value) > MOST_NUMBERS:
        raise DrawingRefused(f"{keyword} has more than {MOST_NUMBERS} values.")
    found = np.array([float(part) for part in value], np.float64)
    if found.size % size or not np.isfinite(found).all():
        return np.empty((0, size))
    return found.reshape(-1, size)


def triple(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly ``count`` finite numbers."""
    value: Any = ds.get(keyword)
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    found = tuple(float(part) for part in value)
    return found if all(map(math.isfinite, found)) else None


def code(item: Dataset) -> Code | None:
    """Return a coded concept; SNOMED RT identifiers become SNOMED CT's (PS3.16 Section 8.1.1)."""
    value, scheme = text(item, "CodeValue", 16), text(item, "CodingSchemeDesignator", 16)
    meaning = text(item, "CodeMeaning")
    if scheme in ("SRT", "SNM3", "99SDM"):
        value, scheme = _TO_SCT.get(value, ""), "SCT"
    return Code(value, scheme, meaning) if value and scheme and meaning else None


def is_called(item: Dataset, *known: tuple[str, str]) -> bool:
    """Tell whether the concept name of a content item is one of ``known``: (value, scheme) pairs."""
    name = code(first(item, "ConceptNameCodeSequence"))
    return name is not None and (name.value, name.scheme) in known


def image_refs(references: Iterable[Dataset]) -> list[ImageRef]:
    """Return the images (or frames of them) that items of a reference sequence name."""
    found = []
    for item in references:
        uid = text(item, "ReferencedSOPInstanceUID")
        value: Any = item.get("ReferencedFrameNumber")
        frames = [value] if isinstance(value, (int, str)) or value is None else list(value)
        found += [ImageRef(sop_instance_uid=uid, frame=None if n is None else int(n)) for n in frames if uid]
    return found
