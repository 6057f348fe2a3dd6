"""The context of a question: the lines that were sent, and what a DICOM header adds to them."""

from __future__ import annotations

import re

from domain.context import StudyContext

_SEX = {"cxr": {"M": "M", "F": "F"}, "derm": {"M": "male", "F": "female"}, "ct": {"M": "M", "F": "F"}}


def context_used(sent: str, header: StudyContext, modality: str) -> str:
    """Return the sent lines, then ``Age`` and ``Gender`` of the header where no such line was sent.

    In the form of the training data: decades for radiology (``Age:60-70.``), years for dermatology. What the header
    does not say is left out, never guessed.
    """
    given = {match.lower() for match in re.findall(r"(?im)^\s*(age|gender)\s*:", sent)}
    lines = [sent.strip()] if sent.strip() else []
    if "age" not in given and header.patient_age_y is not None:
        years = int(header.patient_age_y)
        lines.append(f"Age:{years}." if modality == "derm" else f"Age:{years // 10 * 10}-{years // 10 * 10 + 10}.")
    sex = _SEX[modality].get(header.patient_sex or "")
    if "gender" not in given and sex:
        lines.append(f"Gender:{sex}.")
    return "\n".join(lines)
