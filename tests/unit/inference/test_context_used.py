"""The lines that were sent win; the header fills in the others."""

from __future__ import annotations

import pytest

from domain.context import Prior, StudyContext
from inference.context import context_used

HEADER = StudyContext(
    patient_age_y=64.0,
    patient_sex="F",
    indication="dyspnea",
    priors=(Prior(modality="CR", body_part=None, days_before=730),),
)
AGE, GENDER, INDICATION = "Age:60-70.", "Gender:F.", "Indication: dyspnea."
COMPARISON = "Comparison: CR, 24 months earlier."


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        ("", [AGE, GENDER, INDICATION, COMPARISON]),
        ("Indication: cough.", [AGE, GENDER, "Indication: cough.", COMPARISON]),
        ("COMPARISON : None.\nage: 5", ["age: 5", GENDER, INDICATION, "COMPARISON : None."]),
        ("Cough for days", [AGE, GENDER, "Cough for days", INDICATION, COMPARISON]),
        ("Age:5. Gender:M. Indication: a Comparison: None.", ["Age:5. Gender:M. Indication: a Comparison: None."]),
        ("Age:5.\nCough", [GENDER, "Age:5.", "Cough", INDICATION, COMPARISON]),
        ("Packages: 10", [AGE, GENDER, "Packages: 10", INDICATION, COMPARISON]),
    ],
)  # fmt: skip
def test_sent_lines_are_kept_and_the_missing_ones_added(sent: str, whole: list[str]) -> None:
    assert context_used(sent, HEADER, "cxr").split("\n") == whole


def test_dermatology_is_told_years_and_words() -> None:
    assert context_used("Gender:female.", HEADER, "derm").startswith("Age:64.\nGender:female.\n")
    assert context_used("", StudyContext(patient_sex="M"), "derm") == "Gender:male."


def test_a_header_that_says_nothing_adds_nothing() -> None:
    assert context_used("", StudyContext(patient_sex="O"), "ct") == ""
    assert context_used(" cough ", StudyContext(), "ct") == "cough"
