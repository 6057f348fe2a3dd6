"""The check of a report in words: every text, number and statement of the findings is in it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_out.kind import Check
from dicom_out.verify_regions import check_evidence
from domain.codes import Code
from domain.errors import VerificationFailed

_FINDINGS, _IMPRESSIONS = "121070", "121072"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
_DIGITS = 2e-3
"""A text has four significant digits."""


def check_text_sr(check: Check) -> None:
    """Compare a report, read from its file, with the findings."""
    (report,) = check.objects
    if report.ContentTemplateSequence[0].TemplateIdentifier != "2000":
        raise VerificationFailed("Text SR: it does not follow TID 2000.")
    findings = check.result.findings
    found = list(_texts(report, _FINDINGS))
    if findings.narrative and findings.narrative not in found:
        raise VerificationFailed("Text SR: the narrative is not the engine's.")
    if list(_texts(report, _IMPRESSIONS)) != ([findings.impression] if findings.impression else []):
        raise VerificationFailed("Text SR: the impression is not the engine's.")
    labels = {segment.key: segment.label for segment in findings.segments}
    for item in findings.measurements:
        line = _line(found, "Whole series" if item.segment is None else labels[item.segment])
        numbers = [float(number) for number in _NUMBER.findall(line)]
        if not any(math.isclose(number, item.value, rel_tol=_DIGITS, abs_tol=1e-9) for number in numbers):
            raise VerificationFailed(f"Text SR: {item.concept.meaning} is not the engine's number.")
    for said in findings.evaluations:
        line = _line(found, "Whole series" if said.segment is None else labels[said.segment])
        if (said.value.meaning if isinstance(said.value, Code) else said.value) not in line:
            raise VerificationFailed(f"Text SR: {said.concept.meaning} is not as the engine said.")
    for box in findings.detections:
        if not any(line.startswith(f"{box.label}: {box.type.meaning}") for line in found):
            raise VerificationFailed("Text SR: a detection is missing.")
    check_evidence(report, check)


def _line(found: list[str], subject: str) -> str:
    """Return what is said of a segment."""
    for line in found:
        if line.startswith(f"{subject}: "):
            return line
    raise VerificationFailed("Text SR: nothing is said of a segment.")


def _texts(report: Dataset, section: str) -> Iterator[str]:
    for part in report.ContentSequence:
        names = part.get("ConceptNameCodeSequence")
        if names and names[0].CodeValue == section:
            yield from (str(item.TextValue) for item in part.ContentSequence)
