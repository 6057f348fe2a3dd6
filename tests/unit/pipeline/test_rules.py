"""Routes answer with YES, NO or UNKNOWN, and say why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.engine import Answer
from domain.series import SeriesFacts
from pipeline.rules import Route

CHEST = SeriesFacts(
    modality="CT",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    instances=100,
    body_part_examined="CHEST",
    series_description="Thorax lung 1.0",
    slice_thickness_mm=1.0,
    sender="CT01",
)


def test_a_route_without_conditions_takes_everything() -> None:
    assert Route(name="all", engine="lungs").match(CHEST).answer is Answer.YES


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ({"modality": ("CT", "MR")}, Answer.YES),
        ({"modality": ("MR",)}, Answer.NO),
        ({"body_part_examined": ("chest",)}, Answer.YES),
        ({"body_part_examined": ("ABDOMEN",)}, Answer.NO),
        ({"series_description": ("*LUNG*",)}, Answer.YES),
        ({"series_description": ("*bone*",)}, Answer.NO),
        ({"exclude_series_description": ("*lung*",)}, Answer.NO),
        ({"calling_ae_titles": ("CT02",)}, Answer.NO),
        ({"min_instances": 101}, Answer.NO),
        ({"max_slice_thickness_mm": 0.9}, Answer.NO),
        ({"max_slice_thickness_mm": 1.0}, Answer.YES),
        ({"burned_in": "refuse"}, Answer.YES),
    ],
)
def test_each_condition_decides(condition: dict[str, object], answer: Answer) -> None:
    route = replace(Route(name="r", engine="lungs"), **condition)  # type: ignore[arg-type]
    verdict = route.match(CHEST)
    assert verdict.answer is answer
    assert verdict.reason


@pytest.mark.parametrize(("burned_in", "answer"), [(True, Answer.NO), (False, Answer.YES), (None, Answer.YES)])
def test_a_route_may_refuse_images_that_say_that_their_pixels_name_the_patient(
    burned_in: bool | None, answer: Answer
) -> None:
    facts = replace(CHEST, burned_in_annotation=burned_in)
    verdict = Route(name="r", engine="lungs", burned_in="refuse").match(facts)
    assert (verdict.answer, "BurnedInAnnotation is YES" in verdict.reason) == (answer, answer is Answer.NO)
    assert Route(name="r", engine="lungs").match(facts).answer is Answer.YES


@pytest.mark.parametrize(
    "condition",
    [{"body_part_examined": ("CHEST",)}, {"max_slice_thickness_mm": 1.0}, {"series_description": ("*LUNG*",)}],
)
def test_an_absent_fact_is_unknown_not_no(condition: dict[str, object]) -> None:
    silent = replace(CHEST, body_part_examined=None, slice_thickness_mm=None, series_description=None)
    route = replace(Route(name="r", engine="lungs"), **condition)  # type: ignore[arg-type]
    verdict = route.match(silent)
    assert verdict.answer is Answer.UNKNOWN
    assert "absent" in verdict.reason


def test_an_empty_body_part_stands_for_a_header_that_does_not_say() -> None:
    route = Route(name="r", engine="lungs", body_part_examined=("CHEST", ""))
    assert route.match(replace(CHEST, body_part_examined=None)).answer is Answer.YES


def test_a_no_wins_over_an_unknown() -> None:
    route = Route(name="r", engine="lungs", modality=("MR",), body_part_examined=("CHEST",))
    assert route.match(replace(CHEST, body_part_examined=None)).answer is Answer.NO


def test_reasons_quote_no_value_of_the_header() -> None:
    facts = replace(CHEST, series_description="CANARY", body_part_examined="CANARY")
    for route in (
        Route(name="r", engine="e", series_description=("*LUNG*",)),
        Route(name="r", engine="e", exclude_series_description=("*",)),
        Route(name="r", engine="e", body_part_examined=("CHEST",)),
    ):
        assert "CANARY" not in route.match(facts).reason


def test_a_no_says_what_the_route_takes() -> None:
    route = Route(name="r", engine="lungs", modality=("MR", ""), min_instances=20)
    assert route.match(CHEST).reason == "Modality is not one of the route's (MR, absent)"
