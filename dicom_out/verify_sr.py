"""The check of an encoded report: every number and statement, and everything it points at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicom_out.kind import Check
from dicom_out.verify_content import (
    CATEGORY,
    FINDING,
    Number,
    Statement,
    Tracking,
    by_tracking,
    children,
    code_of,
    is_drawn,
    name_of,
    number_of,
    same_number,
    statement_of,
    walk,
)
from dicom_out.verify_regions import check_evidence, check_lines, check_region
from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import Detection, Measurement, SegmentDescription

_PRESENCE = Code("121052", "DCM", "Presence of property")
_ABSENT = Code("272519000", "SCT", "Absent")
_IMPRESSION = Code("121073", "DCM", "Impression")
_CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
_PERCENT = Code("%", "UCUM", "Percent")
_UNIT_OF = {"[hnsf'U]": ("CT",), "{SUVbw}g/ml": ("PT",)}
"""Units that only some modalities have."""


def check_sr(check: Check) -> None:
    """Compare a report, read from its file, with the findings, the segmentation and the source."""
    (sr,) = check.objects
    if sr.ContentTemplateSequence[0].TemplateIdentifier != "1500":
        raise VerificationFailed("SR: it does not follow TID 1500.")
    check_evidence(sr, check)
    _check_units(sr)
    groups, statements = by_tracking(sr)
    _Subjects(check, groups, statements).check()
    _check_whole(statements.get(None, []), check)


class _Subjects:
    """The groups and statements of a report, taken one subject after the other, in the order of the findings."""

    def __init__(
        self,
        check: Check,
        groups: dict[Tracking, list[Dataset]],
        statements: dict[Tracking | None, list[Dataset]],
    ) -> None:
        self._check = check
        self._groups = list(groups.items())
        self._statements = [(tracked, items) for tracked, items in statements.items() if tracked is not None]

    def check(self) -> None:
        """Compare every subject; none may be missing, and none be left."""
        findings = self._check.result.findings
        for number, segment in enumerate(findings.segments, start=1):
            self._check_segment(number, segment)
        if any(_of_series(item, self._check) for item in findings.measurements):
            self._check_series()
        for item in findings.detections:
            self._check_detection(item)
        if self._groups or self._statements:
            raise VerificationFailed("SR: its tracking UIDs are not one for each finding.")

    def _check_segment(self, number: int, segment: SegmentDescription) -> None:
        check, findings = self._check, self._check.result.findings
        label = f"segment {number}"
        measured = [item for item in findings.measurements if item.segment == segment.key]
        said: list[Statement] = [(e.concept, e.value) for e in findings.evaluations if e.segment == segment.key]
        has_region = check.has_voxels(number) or any(item.points for item in measured)
        if not has_region and (findings.shape is not None or check.options.regionless == "statement"):
            if findings.shape is not None or measured or said:
                self._check_stated(number, segment, measured, said)
            return
        if not has_region and not measured and not said:
            return
        tracked, groups = self._next(self._groups, label)
        if check.seg is not None and check.seg.tracking[number] != tracked:
            raise VerificationFailed(f"SR: the tracking UID of {label} is not the SEG's.")
        _check_subject(label, segment, groups, segment.type_modifiers)
        plain = [group for group in groups if not is_drawn(group)]
        check_numbers(label, children(plain), [item for item in measured if not item.points])
        subject: list[Statement] = [(CATEGORY, segment.category), (FINDING, segment.type)]
        _check_statements(label, children(groups), [*said, *subject * len(groups)])
        if check.seg is not None and check.has_voxels(number):
            check_region(number, plain, check, check.seg)
        drawn = [group for group in groups if is_drawn(group)]
        check_lines(label, drawn, [item for item in measured if item.points], check, number)

    def _check_stated(
        self, number: int, segment: SegmentDescription, measured: list[Measurement], said: list[Statement]
    ) -> None:
        """What was not found is said to be so in a code, the engine's or ours, and nothing is pointed at."""
        label = f"segment {number}"
        _, items = self._next(self._statements, label)
        _check_subject(label, segment, items, segment.type_modifiers)
        check_numbers(label, items, measured)
        has_masks = self._check.result.findings.shape is not None
        absent = [] if not has_masks or any(isinstance(value, Code) for _, value in said) else [(_PRESENCE, _ABSENT)]
        _check_statements(label, items, [*said, *absent])
        if any(child.ValueType in ("IMAGE", "SCOORD") for item in items for child in walk(item)):
            raise VerificationFailed(f"SR: {label} has no voxel, but something is pointed at.")

    def _check_series(self) -> None:
        measured = [item for item in self._check.result.findings.measurements if item.segment is None]
        _, groups = self._next(self._groups, "the series")
        plain = [group for group in groups if not is_drawn(group)]
        stated = self._check.options.regionless == "statement"
        expected = [] if stated else [item for item in measured if not item.points]
        check_numbers("the series", children(plain), expected)
        drawn = [group for group in groups if is_drawn(group)]
        check_lines("the series", drawn, [item for item in measured if item.points], self._check, None)

    def _check_detection(self, item: Detection) -> None:
        label = f'detection "{item.key}"'
        _, groups = self._next(self._groups, label)
        _check_subject(label, item, groups, ())
        x0, y0, x1, y1 = item.box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        number = None
        if item.probability is not None:
            number = Measurement(segment=None, concept=_CERTAINTY, value=100 * item.probability, unit=_PERCENT)
        check_lines(label, groups, [], self._check, None, box=(item.image, corners, number))

    @staticmethod
    def _next(waiting: list[tuple[Tracking, list[Dataset]]], label: str) -> tuple[Tracking, list[Dataset]]:
        if not waiting:
            raise VerificationFailed(f"SR: {label} is missing.")
        return waiting.pop(0)


def _of_series(item: Measurement, check: Check) -> bool:
    """Tell whether a number of the whole series is in a group."""
    return item.segment is None and (bool(item.points) or check.options.regionless == "group")


def _check_subject(
    label: str, item: SegmentDescription | Detection, groups: list[Dataset], sides: Sequence[Code]
) -> None:
    """Category, type and side of each group are the finding's."""
    for group in groups:
        said = {
            name_of(child): code_of(child.ConceptCodeSequence[0])
            for child in group.ContentSequence
            if "ConceptCodeSequence" in child
        }
        if (said.get(CATEGORY.value), said.get(FINDING.value)) != (item.category, item.type):
            raise VerificationFailed(f"SR: category or type of {label} is not the finding's.")
        named = {
            code_of(child.ConceptCodeSequence[0]).value for child in walk(group) if name_of(child) == "272741003"
        }
        if not named <= {code.value for code in sides}:
            raise VerificationFailed(f"SR: the laterality of {label} is not the finding's.")


def check_numbers(label: str, items: Sequence[Dataset], expected: Sequence[Measurement]) -> None:
    """The numbers are the engine's, no more and no less."""
    said = [number_of(item) for item in items if item.ValueType == "NUM"]
    wanted: list[tuple[Number, float]] = [((m.concept, m.unit, m.derivation), m.value) for m in expected]
    if Counter(what for what, _ in said) != Counter(what for what, _ in wanted):
        raise VerificationFailed(f"SR: the measurements of {label} are not the engine's.")
    for what, value in wanted:
        if not any(what == other and same_number(value, written) for other, written in said):
            raise VerificationFailed(f"SR: {what[0].meaning} of {label} is not the engine's number.")


def _check_statements(label: str, items: Sequence[Dataset], expected: Sequence[Statement]) -> None:
    said = [
        statement_of(item)
        for item in items
        if item.RelationshipType == "CONTAINS" and item.ValueType in ("CODE", "TEXT")
    ]
    if Counter(said) != Counter(expected):
        raise VerificationFailed(f"SR: the evaluations of {label} are not the engine's.")


def _check_whole(items: list[Dataset], check: Check) -> None:
    """What is said of the whole series, and what a model wrote; an engine that says nothing found nothing."""
    findings = check.result.findings
    expected: list[Statement] = [(e.concept, e.value) for e in findings.evaluations if e.segment is None]
    expected += [
        (name, said) for name, said in ((FINDING, findings.narrative), (_IMPRESSION, findings.impression)) if said
    ]
    numbers = []
    if check.options.regionless == "statement":
        numbers = [item for item in findings.measurements if item.segment is None and not item.points]
    if not (findings.segments or findings.detections or findings.measurements or expected):
        expected.append((_PRESENCE, _ABSENT))
    check_numbers("the series", items, numbers)
    if Counter(statement_of(item) for item in items if item.ValueType != "NUM") != Counter(expected):
        raise VerificationFailed("SR: the evaluations of the series are not the engine's.")


def _check_units(sr: Dataset) -> None:
    """No number has a unit that the modality of the source does not have."""
    modality = {code_of(i.ConceptCodeSequence[0]).value for i in walk(sr) if name_of(i) == "121139"}
    for item in walk(sr):
        if item.ValueType == "NUM" and modality:
            unit = number_of(item)[0][1].value
            if not modality <= set(_UNIT_OF.get(unit, modality)):
                raise VerificationFailed(f"SR: a number is in {unit}, which images of this modality do not have.")
