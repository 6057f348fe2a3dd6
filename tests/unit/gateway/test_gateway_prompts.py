from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import ConfigurationError
from domain.prompt import Box, Point, Space
from gateway.config import load_config
from gateway.prompts import prompt_given, prompt_of
from gateway.wiring import routes


def given(
    *, boxes: tuple[str, ...] = (), points: tuple[str, ...] = (), background: tuple[str, ...] = (),
    slice_: int | None = None, lps: bool = False,
) -> object:  # fmt: skip
    return prompt_of(prompt_given(boxes=boxes, points=points, background=background, slice_=slice_, lps=lps))


def test_a_box_is_written_x_before_y_and_read_as_slice_row_column() -> None:
    prompt = prompt_of(prompt_given(boxes=("10,20,30.5,40",), points=(), background=(), slice_=7, lps=False))
    assert prompt is not None
    assert prompt.objects[0].boxes == (Box(corners=((7, 20, 10), (7, 40, 30.5))),)


def test_each_box_is_an_object() -> None:
    prompt = prompt_of(prompt_given(boxes=("1,2,3,4", "5,6,7,8"), points=(), background=(), slice_=0, lps=False))
    assert prompt is not None
    assert len(prompt.objects) == 2


def test_points_inside_and_outside_belong_to_one_object() -> None:
    prompt = prompt_of(
        prompt_given(boxes=(), points=("1,2", "3,4"), background=("9,9",), slice_=1, lps=False)
    )  # fmt: skip
    assert prompt is not None
    assert prompt.objects[0].points == (
        Point(at=(1, 2, 1)), Point(at=(1, 4, 3)), Point(at=(1, 9, 9), positive=False),
    )  # fmt: skip


def test_patient_coordinates_have_three_numbers_and_no_slice() -> None:
    prompt = prompt_of(
        prompt_given(boxes=("-10,2,5.5,10,4,5.5",), points=(), background=(), slice_=None, lps=True)
    )  # fmt: skip
    assert prompt is not None
    assert prompt.space is Space.LPS
    assert prompt.objects[0].boxes == (Box(corners=((-10, 2, 5.5), (10, 4, 5.5))),)


def test_nothing_given_is_no_prompt() -> None:
    assert given() is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"slice_": 3}, "--slice and --lps need --box or --point"),
        ({"boxes": ("1,2,3,4",)}, "--slice is required"),
        ({"boxes": ("1,2,3,4",), "slice_": 3, "lps": True}, "--slice: not with --lps"),
        ({"boxes": ("1,2,3",), "slice_": 3}, "--box: must be 4 numbers"),
        ({"boxes": ("1,2,3,x",), "slice_": 3}, "--box: must be 4 numbers"),
        ({"boxes": ("1,2,nan,4",), "slice_": 3}, "--box: must be 4 numbers"),
        ({"points": ("1,inf",), "slice_": 3}, "--point: must be 2 numbers"),
        ({"boxes": ("1,2,3,4",), "lps": True}, "--box: must be 6 numbers"),
        ({"points": ("1,2,3",), "slice_": 3}, "--point: must be 2 numbers"),
        ({"background": ("1,2",), "slice_": 3}, "--background needs"),
        ({"boxes": ("1,2,3,4", "1,2,3,5"), "points": ("1,2",), "slice_": 3}, "which object a point belongs to"),
    ],
)
def test_options_that_make_no_prompt_are_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        given(**arguments)  # type: ignore[arg-type]


def configuration(tmp_path: Path, prompt: str) -> Path:
    file = tmp_path / "voxgate.toml"
    file.write_text(f'[[routes]]\nname = "a"\nengine = "medsam2"\nprompt = {prompt}\n', "utf-8")
    return file


def test_a_route_may_carry_a_default_prompt(tmp_path: Path) -> None:
    text = '{space = "fraction", slice = 0.5, box = [0.25, 0.3, 0.75, 0.7], label = "Middle"}'
    (route,) = routes(load_config(configuration(tmp_path, text), {}, engines=("medsam2",)))
    assert route.prompt is not None
    assert route.prompt.space is Space.FRACTION
    assert route.prompt.objects[0].boxes == (Box(corners=((0.5, 0.3, 0.25), (0.5, 0.7, 0.75))),)
    assert route.prompt.objects[0].label == "Middle"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("{box = [1, 2, 3, 4]}", "slice belongs to voxel and fraction"),
        ('{space = "lps", slice = 1, box = [1, 2, 3, 4, 5, 6]}', "slice belongs to voxel and fraction"),
        ("{slice = 1, box = [1, 2, 3]}", "box must be 4 numbers"),
        ("{slice = 1, points = [[1, 2, 3]]}", "a point must be 2 numbers"),
        ("{slice = nan, box = [1, 2, 3, 4]}", "finite number"),
        ("{slice = 1, points = [[1, inf]]}", "finite number"),
        ("{slice = 1}", "box or points is required"),
        ("{slice = 1, bux = [1, 2, 3, 4]}", "unknown setting"),
        (
            '[{slice = 1, box = [1, 2, 3, 4]}, {space = "lps", points = [[1, 2, 3]]}]',
            "all objects of a prompt must be in one space",
        ),
    ],
)
def test_a_faulty_default_prompt_is_a_fault_of_the_configuration(tmp_path: Path, prompt: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_config(configuration(tmp_path, prompt), {}, engines=("medsam2",))
