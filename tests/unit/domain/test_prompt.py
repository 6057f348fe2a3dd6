from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.codes import Code
from domain.errors import NotApplicable
from domain.prompt import Box, LongAxis, ObjectPrompt, Point, Prompt, SliceMask, Space
from domain.volume import Grid

SHAPE = (9, 30, 40)


def grid(turn_rad: float = 0.4) -> Grid:
    """Return an oblique grid of anisotropic voxels."""
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    axes = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = axes * (2.5, 0.7, 0.8)
    affine[:3, 3] = -120.5, 33.25, 812.0
    return Grid(shape=SHAPE, affine=affine, frame_of_reference_uid="2.25.1")


BOX = Box(corners=((4, 3.5, 6.25), (4, 20, 31)))


def only(box: Box = BOX, **parts: object) -> Prompt:
    return Prompt(objects=(ObjectPrompt(boxes=(box,), **parts),))  # type: ignore[arg-type]


@given(
    st.integers(0, SHAPE[0] - 1),
    *(st.floats(-0.5, size - 0.5) for size in SHAPE[1:]),
    st.floats(-0.499, 0.499),
)
def test_a_position_in_mm_is_the_same_place_as_its_index(k: int, row: float, column: float, off: float) -> None:
    here = grid()
    for position, space in (((k, row, column), Space.VOXEL), (here.to_lps((k + off, row, column)), Space.LPS)):
        point = Point(at=tuple(float(x) for x in position))  # type: ignore[arg-type]
        prompt = Prompt(objects=(ObjectPrompt(points=(point,)),), space=space).on(here)
        (found,) = prompt.objects[0].points
        assert found.at[0] == k
        assert found.at == pytest.approx((k, row, column), abs=1e-9)
        assert prompt.space is Space.VOXEL


def test_the_same_box_in_voxels_and_mm_agrees_within_a_hundredth_of_a_millimetre() -> None:
    here = grid()
    first, second = (tuple(here.to_lps(corner).tolist()) for corner in BOX.corners)
    moved = replace(only(Box(corners=(first, second))), space=Space.LPS).on(here)
    found = here.to_lps(moved.objects[0].boxes[0].corners)
    assert np.abs(found - here.to_lps(BOX.corners)).max() < 0.01


def test_fractions_go_from_edge_to_edge_and_the_middle_is_the_middle() -> None:
    box = Box(corners=((0.5, 0.0, 0.25), (0.5, 1.0, 0.75)))
    (found,) = replace(only(box), space=Space.FRACTION).on(grid()).objects[0].boxes
    assert found.corners == ((4, -0.5, 9.5), (4, 29.5, 29.5))


@pytest.mark.parametrize(
    "at", [(-0.6, 3, 3), (9, 3, 3), (4, 30, 3), (4, 3, -1), (4, float("nan"), 3), (float("inf"), 3, 3)]
)
def test_a_position_outside_the_series_is_refused(at: tuple[float, float, float]) -> None:
    with pytest.raises(
        NotApplicable,
        match="object 1 lies outside the series, which has 9 slices, counted from 0, of 30 rows and 40 columns",
    ):
        Prompt(objects=(ObjectPrompt(points=(Point(at=at),)),)).on(grid())


def test_a_box_or_axis_across_slices_is_refused() -> None:
    ends = ((2.0, 3.0, 3.0), (4.0, 8.0, 8.0))
    with pytest.raises(NotApplicable, match="box of object 1 does not lie on one slice"):
        only(Box(corners=ends)).on(grid())
    with pytest.raises(NotApplicable, match="long axis of object 1"):
        Prompt(objects=(ObjectPrompt(long_axes=(LongAxis(ends=ends),)),)).on(grid())


def test_a_mask_must_be_on_the_grid_and_hold_something() -> None:
    def prompt(k: int, pixels: np.ndarray) -> Prompt:
        return Prompt(objects=(ObjectPrompt(masks=(SliceMask(slice=k, pixels=pixels),)),))

    full = np.ones(SHAPE[1:], bool)
    assert prompt(8, full).on(grid()).objects[0].masks[0].slice == 8
    for k, pixels, said in ((9, full, "not on the grid"), (0, full[1:], "not on the grid"), (0, ~full, "empty")):
        with pytest.raises(NotApplicable, match=said):
            prompt(k, pixels).on(grid())


def test_a_prompt_needs_something_that_is_the_object() -> None:
    with pytest.raises(ValueError, match="needs a box"):
        ObjectPrompt(points=(Point(at=(0, 0, 0), positive=False),))
    with pytest.raises(ValueError, match="needs an object"):
        Prompt(objects=())


def test_equal_prompts_have_equal_digests_and_every_difference_shows() -> None:
    mask = np.zeros(SHAPE[1:], bool)
    mask[3, 3] = True
    prompts = [
        only(),
        only(Box(corners=((4, 3.5, 6.25), (4, 20, 31.5)))),
        replace(only(), space=Space.LPS),
        only(points=(Point(at=(4, 1, 1)),)),
        only(points=(Point(at=(4, 1, 1), positive=False),)),
        only(long_axes=(LongAxis(ends=BOX.corners),)),
        only(masks=(SliceMask(slice=1, pixels=mask),)),
        only(masks=(SliceMask(slice=1, pixels=mask.T.copy()),)),
        only(label="lesion"),
        only(type=Code("1", "SCT", "a")),
        Prompt(objects=(*only().objects, *only().objects)),
    ]
    assert len({prompt.digest for prompt in prompts}) == len(prompts)
    assert only().digest == only().digest


def test_what_was_drawn_stays_out_of_logs() -> None:
    assert "CANARY" not in repr(only(label="CANARY"))
