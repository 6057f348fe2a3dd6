"""What an engine wrote, as DICOM can hold it: a model's stray character must not cost its whole result."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from domain.findings import Evaluation
from domain.ports import Result

_ALLOWED = "\t\n\f\r"
_NOT_TEXT = ("Cc", "Cs")
"""Control characters, and halves of surrogate pairs, which no encoding has."""


def in_plain_text(result: Result) -> Result:
    """Return the result, its texts without control characters (PS3.5 6.1.3) and trailing spaces, which get lost."""
    findings = result.findings
    # One without a word says nothing, and TextValue must not be empty (PS3.3 C.17.3.2)
    evaluations = tuple(item for item in map(_evaluation, findings.evaluations) if item.value != "")
    narrative, impression = _plain(findings.narrative), _plain(findings.impression)
    if (evaluations, narrative, impression) == (findings.evaluations, findings.narrative, findings.impression):
        return result
    said = replace(findings, evaluations=evaluations, narrative=narrative, impression=impression)
    return replace(result, findings=said)


def _evaluation(item: Evaluation) -> Evaluation:
    return replace(item, value=_plain(item.value)) if isinstance(item.value, str) else item


def _plain(text: str) -> str:
    return "".join(letter if _is_text(letter) else " " for letter in text).rstrip()


def _is_text(letter: str) -> bool:
    return letter in _ALLOWED or unicodedata.category(letter) not in _NOT_TEXT
