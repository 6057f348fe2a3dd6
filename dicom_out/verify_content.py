"""Content items as a reader takes them: names, codes, numbers, and which group tracks what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from domain.codes import Code
from domain.errors import VerificationFailed

_GROUP, _EVALUATIONS = "125007", "C0034375"
_TRACKING_ID, _TRACKING_UID = "112039", "112040"
CATEGORY, FINDING = Code("276214006", "SCT", "Finding category"), Code("121071", "DCM", "Finding")

Statement = tuple[Code, Code | str]
Number = tuple[Code, Code, Code | None]
"""What is measured, its unit, how it is derived."""
Tracking = tuple[str, str]


def by_tracking(sr: Dataset) -> tuple[dict[Tracking, list[Dataset]], dict[Tracking | None, list[Dataset]]]:
    """Return the measurement groups, and the statements outside of them, by what they track."""
    groups: dict[Tracking, list[Dataset]] = {}
    statements: dict[Tracking | None, list[Dataset]] = {}
    for part in sr.ContentSequence:
        for item in part.get("ContentSequence") or ():
            if name_of(item) == _GROUP:
                groups.setdefault(_tracking(item), []).append(item)
            elif name_of(part) == _EVALUATIONS:
                tracked = any(name_of(child) == _TRACKING_UID for child in item.get("ContentSequence") or ())
                statements.setdefault(_tracking(item) if tracked else None, []).append(item)
    return groups, statements


def _tracking(group: Dataset) -> Tracking:
    values = {name_of(item): item for item in group.ContentSequence}
    return str(values[_TRACKING_ID].TextValue), str(values[_TRACKING_UID].UID)


def walk(item: Dataset) -> Iterator[Dataset]:
    """Yield all content items below ``item``."""
    for child in item.get("ContentSequence") or ():
        yield child
        yield from walk(child)


def children(groups: Sequence[Dataset]) -> list[Dataset]:
    """Return what is directly below the groups."""
    return [child for group in groups for child in group.ContentSequence]


def is_drawn(group: Dataset) -> bool:
    """Tell whether a group has a line on an image."""
    return any(item.ValueType == "SCOORD" for item in group.ContentSequence)


def name_of(item: Dataset) -> str | None:
    """Return the code value of a content item's name."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue")) if names else None


def code_of(item: Dataset) -> Code:
    """Return an item of a code sequence."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return Code(str(value), str(item.get("CodingSchemeDesignator")), str(item.get("CodeMeaning")))


def number_of(item: Dataset) -> tuple[Number, float]:
    """Return what a NUM measures and its decimal string; the binary value beside it must be the same number."""
    measured = item.MeasuredValueSequence[0]
    value = float(measured.NumericValue)
    if "FloatingPointValue" in measured and not same_number(value, float(measured.FloatingPointValue)):
        raise VerificationFailed("SR: NumericValue and FloatingPointValue differ.")
    derivation = [
        code_of(child.ConceptCodeSequence[0])
        for child in item.get("ContentSequence") or ()
        if name_of(child) == "121401"
    ]
    what = code_of(item.ConceptNameCodeSequence[0]), code_of(measured.MeasurementUnitsCodeSequence[0])
    return (*what, derivation[0] if derivation else None), value


def same_number(left: float, right: float) -> bool:
    """A decimal string of 16 characters keeps at least nine digits."""
    return math.isclose(left, right, rel_tol=1e-8, abs_tol=1e-12)


def statement_of(item: Dataset) -> Statement:
    """Return the name and value of a CODE or TEXT."""
    value = code_of(item.ConceptCodeSequence[0]) if item.ValueType == "CODE" else str(item.TextValue)
    return code_of(item.ConceptNameCodeSequence[0]), value
