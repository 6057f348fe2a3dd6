"""The context of a study: MedVersa's form, a dictionary, distances in words."""

from __future__ import annotations

import json

import pytest

from domain.codes import Code
from domain.context import SCHEMA_VERSION, Prior, Source, StudyContext

CHEST = Code("816094009", "SCT", "Chest")


def test_medversa_is_told_in_the_form_that_it_was_trained_with() -> None:
    context = StudyContext(
        patient_age_y=34.0,
        patient_sex="F",
        indication="dyspnea; r/o pneumonia",
        priors=(Prior(modality="CT", body_part=CHEST, days_before=91),),
    )
    assert context.as_medversa() == (
        "Age:30-40.\nGender:F.\nIndication: dyspnea; r/o pneumonia.\nComparison: CT chest, 3 months earlier."
    )


def test_what_is_not_known_has_no_line_and_no_priors_are_said_so() -> None:
    assert StudyContext(patient_age_y=0.2, patient_sex="O").as_medversa() == "Age:0-10."
    assert StudyContext(indication="cough?", priors=()).as_medversa() == "Indication: cough?\nComparison: None."
    assert StudyContext().as_medversa() == "Comparison:None."


def test_a_text_cannot_add_lines_of_its_own() -> None:
    assert StudyContext(indication="cough\nGender:M.").as_medversa() == "Indication: cough Gender:M."


@pytest.mark.parametrize(
    ("days", "words"),
    [(0, "the same day"), (1, "1 day earlier"), (13, "13 days earlier"), (14, "2 weeks earlier"),
     (45, "6 weeks earlier"),
     (61, "2 months earlier"), (92, "3 months earlier"),
     (400, "13 months earlier"), (731, "2 years earlier"),
     (3650, "10 years earlier")],
)  # fmt: skip
def test_how_long_ago_is_said_in_the_largest_unit_that_fits_twice(days: int, words: str) -> None:
    assert str(Prior(modality="MR", body_part=None, days_before=days)) == f"MR, {words}"


def test_the_dictionary_is_json_with_units_codes_and_sources() -> None:
    context = StudyContext(
        patient_age_y=64.0,
        body_part=CHEST,
        pixel_spacing_mm=(0.1, 0.2),
        sources={"body_part": (Source(attribute="BodyPartExamined", instance_number=7, derived="by its words"),)},
        notes=("PatientSize: is no height in metres",),
    )
    said = json.loads(json.dumps(context.as_dict()))
    assert said == {
        "schema_version": SCHEMA_VERSION,
        "values": {
            "patient_age_y": 64.0,
            "patient_age_decade": "60-70",
            "body_part": {"value": "816094009", "scheme": "SCT", "meaning": "Chest"},
            "pixel_spacing_mm": [0.1, 0.2],
        },
        "priors": None,
        "sources": {
            "body_part": [{"attribute": "BodyPartExamined", "instance_number": 7, "derived": "by its words"}]
        },
        "notes": ["PatientSize: is no height in metres"],
    }
    assert str(context.sources["body_part"][0]) == "BodyPartExamined of InstanceNumber 7 (by its words)"


def test_free_text_stays_out_of_logs() -> None:
    assert "CANARY" not in repr(
        StudyContext(indication="CANARY", series_description="CANARY", contrast_agent="CANARY")
    )
