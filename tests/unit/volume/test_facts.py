"""What routes and engines may know of a stack."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import ct_series, headers_of, mr_series

from domain.series import Stack
from volume.facts import facts
from volume.geometry import geometry


def test_facts_of_a_volume() -> None:
    stack = Stack(name="", headers=tuple(headers_of(ct_series(4, spacing_mm=2.5))))
    found = facts(stack, geometry(stack).grid, "CT_ROOM_1")
    assert (found.modality, found.instances, found.body_part_examined) == ("CT", 4, "CHEST")
    assert found.spacing_mm == pytest.approx((2.5, 0.7, 0.8))
    assert found.slice_thickness_mm == 2.5
    assert found.convolution_kernel == "B30f"
    assert found.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert found.sender == "CT_ROOM_1"


def test_an_absent_contrast_agent_proves_nothing() -> None:
    headers = headers_of(ct_series(2))
    assert facts(Stack(name="", headers=tuple(headers)), None, None).contrast is None
    injected = [replace(headers[0], contrast_bolus_agent="agent"), headers[1]]
    assert facts(Stack(name="", headers=tuple(injected)), None, None).contrast is True


def test_what_no_slice_says_is_unknown_and_the_usual_value_wins() -> None:
    headers = headers_of(mr_series(5))
    headers[0] = replace(headers[0], slice_thickness_mm=None, repetition_time_ms=99.0)
    found = facts(Stack(name="", headers=tuple(headers)), None, None)
    assert found.spacing_mm is None
    assert found.convolution_kernel is None
    assert (found.slice_thickness_mm, found.repetition_time_ms) == (3.0, 12.0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [((None, "YES", "NO"), True), (("NO", "NO", "NO"), False), (("NO", None, "NO"), None), ((None,) * 3, None)],
)
def test_one_image_that_names_the_patient_is_enough(said: tuple[str | None, ...], expected: bool | None) -> None:
    headers = [replace(h, burned_in_annotation=own) for h, own in zip(headers_of(ct_series(3)), said, strict=True)]
    assert facts(Stack(name="", headers=tuple(headers)), None, None).burned_in_annotation is expected
