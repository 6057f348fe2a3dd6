"""The check of an encoded report: every number and statement, and everything it points at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_out.verify_seg import CheckedSeg, Slices, image_named
from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import SegmentDescription
from domain.ports import Result

_GROUP, _EVALUATIONS = "125007", "C0034375"
_TRACKING_ID, _TRACKING_UID = "112039", "112040"
_REFERENCED_SEGMENT, _SOURCE_SERIES = "121191", "121232"
_CATEGORY, _FINDING = Code("276214006", "SCT", "Finding category"), Code("121071", "DCM", "Finding")
_LONG_AXIS = Code("103339001", "SCT", "Long Axis")
_PRESENCE = Code("121052", "DCM", "Presence of property")
_ABSENT = Code("272519000", "SCT", "Absent")

Statement = tuple[Code, Code | str]
Number = tuple[Code, Code, Code | None]
"""What is measured, its unit, how it is derived."""


def check_sr(sr: Dataset, result: Result, slices: Slices, seg: CheckedSeg | None) -> None:
    """Compare a report, read from its file, with the findings, the segmentation and the source."""
    if sr.ContentTemplateSequence[0].TemplateIdentifier != "1500":
        raise VerificationFailed("SR: it does not follow TID 1500.")
    _check_evidence(sr, slices, seg)
    groups, statements = _by_tracking(sr)
    segments = result.findings.segments
    absent = _absent(result, seg)
    if len(groups) != len(segments) - len(absent) or len(set(statements) - {None}) != len(absent):
        raise VerificationFailed("SR: its tracking UIDs are not one for each segment.")
    present, missing = iter(groups.items()), iter([(uid, items) for uid, items in statements.items() if uid])
    for number, segment in enumerate(segments, 1):
        uid, items = next(missing) if number in absent else next(present)
        if seg is not None and seg.tracking[number] != uid:
            raise VerificationFailed(f"SR: the tracking UID of segment {number} is not the SEG's.")
        if number in absent:
            _check_absent(number, segment, items, result)
            continue
        _check_subject(number, segment, items)
        _check_numbers(number, segment, [i for g in items if not _is_planar(g) for i in g.ContentSequence], result)
        subject: list[Statement] = [(_CATEGORY, segment.category), (_FINDING, segment.type)]
        inside = [item for group in items for item in group.ContentSequence]
        _check_statements(number, segment, inside, result, also=subject * len(items))
        if seg is not None:
            _check_references(number, items, slices, seg)
            _check_line(number, items, seg)
    _check_whole(statements.get(None, []), result)


def _absent(result: Result, seg: CheckedSeg | None) -> list[int]:
    """Return the numbers of the segments that were looked for and have no voxel."""
    labels = result.findings.labels
    if labels is None:
        return []
    present = set(seg.voxels) if seg is not None else {number for plane in labels for number in np.unique(plane)}
    return [number for number in range(1, len(result.findings.segments) + 1) if number not in present]


Tracking = tuple[str, str]


def _by_tracking(sr: Dataset) -> tuple[dict[Tracking, list[Dataset]], dict[Tracking | None, list[Dataset]]]:
    """Return the measurement groups, and the statements outside of them, by what they track."""
    groups: dict[Tracking, list[Dataset]] = {}
    statements: dict[Tracking | None, list[Dataset]] = {}
    for part in sr.ContentSequence:
        for item in part.get("ContentSequence") or ():
            if _name(item) == _GROUP:
                groups.setdefault(_tracking(item), []).append(item)
            elif _name(part) == _EVALUATIONS:
                tracked = any(_name(child) == _TRACKING_UID for child in item.get("ContentSequence") or ())
                statements.setdefault(_tracking(item) if tracked else None, []).append(item)
    return groups, statements


def _check_absent(number: int, segment: SegmentDescription, items: list[Dataset], result: Result) -> None:
    """What was not found is said to be so in a code, the engine's or ours, and nothing is pointed at."""
    _check_subject(number, segment, items)
    _check_numbers(number, segment, items, result)
    coded = any(e.segment == segment.key and isinstance(e.value, Code) for e in result.findings.evaluations)
    _check_statements(number, segment, items, result, also=[] if coded else [(_PRESENCE, _ABSENT)])
    if any(child.ValueType in ("IMAGE", "SCOORD") for item in items for child in _walk(item)):
        raise VerificationFailed(f"SR: segment {number} has no voxel, but something is pointed at.")


def _walk(item: Dataset) -> Iterator[Dataset]:
    """Yield all content items below ``item``."""
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _walk(child)


def _children(groups: list[Dataset]) -> Iterator[Dataset]:
    for group in groups:
        yield from group.ContentSequence


def _name(item: Dataset) -> str | None:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue")) if names else None


def _code(item: Dataset) -> Code:
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return Code(str(value), str(item.get("CodingSchemeDesignator")), str(item.get("CodeMeaning")))


def _tracking(group: Dataset) -> tuple[str, str]:
    values = {_name(item): item for item in group.ContentSequence}
    return str(values[_TRACKING_ID].TextValue), str(values[_TRACKING_UID].UID)


def _check_subject(number: int, segment: SegmentDescription, groups: list[Dataset]) -> None:
    """Category, type and side of each group are the finding's."""
    for group in groups:
        said = {
            _name(item): _code(item.ConceptCodeSequence[0])
            for item in group.ContentSequence
            if "ConceptCodeSequence" in item
        }
        if (said.get(_CATEGORY.value), said.get(_FINDING.value)) != (segment.category, segment.type):
            raise VerificationFailed(f"SR: category or type of segment {number} is not the finding's.")
        sides = {_code(item.ConceptCodeSequence[0]).value for item in _walk(group) if _name(item) == "272741003"}
        if not sides <= {code.value for code in segment.type_modifiers}:
            raise VerificationFailed(f"SR: the laterality of segment {number} is not the finding's.")


def _check_numbers(number: int, segment: SegmentDescription, items: list[Dataset], result: Result) -> None:
    """The numbers are the engine's, no more and no less; the long axis is checked with its line."""
    expected = [
        ((m.concept, m.unit, m.derivation), m.value) for m in result.findings.measurements if m.segment == segment.key
    ]
    said = [_number(item) for item in items if item.ValueType == "NUM"]
    if Counter(what for what, _ in said) != Counter(what for what, _ in expected):
        raise VerificationFailed(f"SR: the measurements of segment {number} are not the engine's.")
    for what, value in expected:
        if not any(what == other and _close(value, written) for other, written in said):
            raise VerificationFailed(f"SR: {what[0].meaning} of segment {number} is not the engine's number.")


def _is_planar(group: Dataset) -> bool:
    return any(item.ValueType == "SCOORD" for item in group.ContentSequence)


def _number(item: Dataset) -> tuple[Number, float]:
    """Return what a NUM measures and its decimal string; the binary value beside it must be the same number."""
    measured = item.MeasuredValueSequence[0]
    value = float(measured.NumericValue)
    if "FloatingPointValue" in measured and not _close(value, float(measured.FloatingPointValue)):
        raise VerificationFailed("SR: NumericValue and FloatingPointValue differ.")
    derivation = [
        _code(child.ConceptCodeSequence[0]) for child in item.get("ContentSequence") or () if _name(child) == "121401"
    ]
    what = _code(item.ConceptNameCodeSequence[0]), _code(measured.MeasurementUnitsCodeSequence[0])
    return (*what, derivation[0] if derivation else None), value


def _close(left: float, right: float) -> bool:
    """A decimal string of 16 characters keeps at least nine digits."""
    return math.isclose(left, right, rel_tol=1e-8, abs_tol=1e-12)


def _check_statements(
    number: int, segment: SegmentDescription, items: list[Dataset], result: Result, *, also: list[Statement]
) -> None:
    expected: list[Statement] = [
        (e.concept, e.value) for e in result.findings.evaluations if e.segment == segment.key
    ]
    said = [_statement(item) for item in items if item.RelationshipType == "CONTAINS" and _is_statement(item)]
    if Counter(said) != Counter([*expected, *also]):
        raise VerificationFailed(f"SR: the evaluations of segment {number} are not the engine's.")


def _is_statement(item: Dataset) -> bool:
    return item.ValueType in ("CODE", "TEXT")


def _statement(item: Dataset) -> Statement:
    value = _code(item.ConceptCodeSequence[0]) if item.ValueType == "CODE" else str(item.TextValue)
    return _code(item.ConceptNameCodeSequence[0]), value


def _check_whole(items: list[Dataset], result: Result) -> None:
    """Statements about the whole series, and the narrative; an engine that says nothing found nothing."""
    findings = result.findings
    expected: list[Statement] = [(e.concept, e.value) for e in findings.evaluations if e.segment is None]
    if findings.narrative:
        expected.append((_FINDING, findings.narrative))
    if not findings.segments and not expected:
        expected.append((_PRESENCE, _ABSENT))
    if Counter(_statement(item) for item in items) != Counter(expected):
        raise VerificationFailed("SR: the evaluations of the series are not the engine's.")


def _check_references(number: int, groups: list[Dataset], slices: Slices, seg: CheckedSeg) -> None:
    segments = [item.ReferencedSOPSequence[0] for item in _children(groups) if _name(item) == _REFERENCED_SEGMENT]
    if [(str(x.ReferencedSOPInstanceUID), int(x.ReferencedSegmentNumber)) for x in segments] != [
        seg.segments[number]
    ]:
        raise VerificationFailed(f"SR: segment {number} is not referred to in the SEG.")
    series = [str(item.UID) for item in _children(groups) if _name(item) == _SOURCE_SERIES]
    if series != [slices.series_instance_uid]:
        raise VerificationFailed(f"SR: the source series of segment {number} is not the source's.")


def _check_line(number: int, groups: list[Dataset], seg: CheckedSeg) -> None:
    """The long axis begins and ends at pixels of the segment on the slice it names, and is as long as it says."""
    lines = [item for item in _children(groups) if item.ValueType == "SCOORD"]
    lengths = [
        _number(item)
        for group in groups
        if _is_planar(group)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    ]
    if len(lines) != 1 or [what[0] for what, _ in lengths] != [_LONG_AXIS]:
        raise VerificationFailed(f"SR: segment {number} does not have one long axis.")
    mask = seg.mask(image_named(lines[0].ContentSequence[0].ReferencedSOPSequence[0]), number)
    ends = np.array([float(x) for x in lines[0].GraphicData]).reshape(-1, 2)
    if mask is None or len(ends) != 2 or not all(_touches(mask, column, row) for column, row in ends):
        raise VerificationFailed(f"SR: the long axis of segment {number} does not end at the segment.")
    if seg.spacing_mm is None:
        raise VerificationFailed(f"SR: segment {number} has a length, but its image has no patient coordinates.")
    length = float(np.hypot(*((ends[1] - ends[0]) * seg.spacing_mm[::-1])))
    if not math.isclose(length, lengths[0][1], rel_tol=1e-4):
        raise VerificationFailed(f"SR: the long axis of segment {number} is not as long as it says.")


def _touches(mask: npt.NDArray[np.bool_], column: float, row: float) -> bool:
    """Tell whether a pixel of the mask holds the point or has it on its side; 0.5 is the first pixel's centre."""
    rows = {math.floor(row), math.ceil(row) - 1}
    columns = {math.floor(column), math.ceil(column) - 1}
    return any(0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and bool(mask[r, c]) for r in rows for c in columns)


def _check_evidence(sr: Dataset, slices: Slices, seg: CheckedSeg | None) -> None:
    """Evidence is the source and the SEG, and the content refers to nothing else (PS3.3 C.17.2.3)."""
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    expected = {*slices.sop_instance_uids, *(seg.sop_instance_uids if seg is not None else ())}
    if evidence != expected:
        raise VerificationFailed("SR: its evidence is not the source and the SEG.")
    referenced = {
        str(reference.ReferencedSOPInstanceUID)
        for item in _walk(sr)
        for reference in item.get("ReferencedSOPSequence") or ()
    }
    if not referenced <= expected:
        raise VerificationFailed("SR: it refers to an instance that is not in its evidence.")
