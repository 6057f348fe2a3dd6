"""The context of a question: the lines that were sent, and what a DICOM header adds to them."""

from __future__ import annotations

import re

from domain.context import StudyContext

_ORDER = ("age", "gender", "indication", "comparison")
_LABEL = re.compile(rf"(?i)(?:^|(?<=[\s.;]))({'|'.join(_ORDER)})\s*:", re.MULTILINE)
_SEX = {"M": "male", "F": "female"}


def context_used(sent: str, header: StudyContext, modality: str) -> str:
    """Return the sent lines, and ``Age``, ``Gender``, ``Indication`` and ``Comparison`` of the header where not sent.

    In the order and the form of the training data: decades for radiology (``Age:60-70.``), years for dermatology.
    What was sent is not changed, and what the header does not say is left out, never guessed.
    """
    given = {found.lower() for found in _LABEL.findall(sent)}
    added = {name: line for name, line in _lines(header, modality).items() if name not in given}
    lines = sent.strip().splitlines()
    labels = [match[1].lower() if (match := _LABEL.match(line)) else "" for line in lines]
    if all(labels):
        whole = [*zip(labels, lines, strict=True), *added.items()]
        return "\n".join(line for _, line in sorted(whole, key=lambda item: _ORDER.index(item[0])))
    before = [line for name, line in added.items() if name in ("age", "gender")]
    after = [line for name, line in added.items() if name not in ("age", "gender")]
    return "\n".join([*before, sent.strip(), *after])


def _lines(header: StudyContext, modality: str) -> dict[str, str]:
    said = header.lines()
    if modality == "derm":
        if header.patient_age_y is not None:
            said["Age"] = f"{int(header.patient_age_y)}."
        if header.patient_sex in _SEX:
            said["Gender"] = f"{_SEX[header.patient_sex]}."
    return {name.lower(): f"{name}:{text}" for name, text in said.items()}
