"""Axes, masks and settings of MedVersa; no torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigurationError, NotApplicable
from domain.volume import Grid
from inference.medversa.orientation import turned
from inference.medversa.preprocess import image_input, image_mask, volume_input, volume_mask
from inference.medversa.settings import MedVersaSettings, settings_from

ACCEPTED = {"accept_license": "non-commercial research", "weights": "/models/medversa"}


def _grid(axes: np.ndarray, shape: tuple[int, int, int] = (4, 5, 6)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = axes
    return Grid(shape=shape, affine=affine, frame_of_reference_uid="1.2")


@given(order=st.permutations((0, 1, 2)), signs=st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
def test_turning_an_array_there_and_back_changes_nothing(order: list[int], signs: tuple[float, ...]) -> None:
    turn = turned(_grid(np.eye(3)[:, order] * np.array(signs)), "LPS")
    voxels = np.arange(120).reshape(4, 5, 6)
    assert np.array_equal(turn.to_source(turn.to_model(voxels)), voxels)


@given(order=st.permutations((0, 1, 2)), signs=st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
def test_the_network_sees_a_patient_the_same_way_however_the_slices_lie(
    order: list[int], signs: tuple[float, ...]
) -> None:
    grid = _grid(np.eye(3)[:, order] * np.array(signs))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    positions = grid.to_lps(index)
    turn = turned(grid, "LPS")
    x, y, z = (turn.to_model(np.ascontiguousarray(positions[..., axis])) for axis in range(3))
    assert (np.diff(z, axis=0) > 0).all()
    assert (np.diff(y, axis=1) > 0).all()
    assert (np.diff(x, axis=2) > 0).all()


def test_ras_turns_the_plane_by_half_a_circle() -> None:
    grid = _grid(np.eye(3)[::-1])
    voxels = np.arange(120).reshape(4, 5, 6)
    assert np.array_equal(turned(grid, "LPS").to_model(voxels), voxels)
    assert np.array_equal(turned(grid, "RAS").to_model(voxels), voxels[:, ::-1, ::-1])


def test_an_oblique_volume_is_not_for_it() -> None:
    tilt = np.deg2rad(30)
    axes = np.array([[0, 0, 1], [np.sin(tilt), np.cos(tilt), 0], [np.cos(tilt), -np.sin(tilt), 0]])
    with pytest.raises(NotApplicable, match="obliquely"):
        turned(_grid(axes), "LPS")


def test_the_array_is_z_x_y_and_a_mask_comes_back_where_it_was_drawn() -> None:
    voxels = np.full((16, 40, 30), -500, np.int16)
    voxels[4:8, 10:20, 5:15] = 250
    prepared = volume_input(voxels)
    assert prepared.shape == (1, 64, 192, 192)
    back = volume_mask(prepared[0] > -1, voxels.shape)  # the body has the mean, which is 0
    found, truth = np.argwhere(back), np.argwhere(voxels == 250)
    assert np.abs(found.mean(0) - truth.mean(0)).max() < 0.6


def test_hounsfield_units_outside_the_window_make_no_difference() -> None:
    voxels = np.random.default_rng(1).integers(-1000, 1500, (8, 9, 10)).astype(np.int16)
    assert np.array_equal(volume_input(voxels), volume_input(np.clip(voxels, -200, 300)))


def test_a_constant_volume_has_a_finite_input() -> None:
    assert not volume_input(np.zeros((4, 5, 6), np.int16)).any()


def test_pictures_have_the_statistics_of_training_not_of_imagenet() -> None:
    white = image_input(np.full((10, 20, 3), 255, np.uint8))
    assert white[:, 0, 0] == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-3)


def test_the_largest_component_is_an_area_with_its_holes() -> None:
    mask = np.zeros((224, 224), bool)
    mask[50:100, 60:120] = True
    mask[70:80, 80:90] = False
    mask[200:210, 200:210] = True
    drawn = image_mask(mask, (224, 224)).astype(bool)
    expected = mask.copy()
    expected[200:210] = False
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("shape", [(100, 300), (512, 420), (3, 2000), (224, 224)])
def test_a_mask_has_the_rows_and_columns_of_the_picture_even_when_empty(shape: tuple[int, int]) -> None:
    assert image_mask(np.zeros((224, 224), bool), shape).shape == shape
    assert image_mask(np.ones((224, 224), bool), shape).all()


def test_without_the_licence_the_engine_refuses_with_the_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r'accept_license = "non-commercial research"'):
        settings_from({"weights": "/models/medversa"})


def test_settings_have_defaults() -> None:
    assert settings_from(ACCEPTED) == MedVersaSettings(weights="/models/medversa")


def test_faulty_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from({**ACCEPTED, "weights": None, "precision": "int3", "orientation": "up"})
    assert [line.split(":")[0].split(" ")[0] for line in str(caught.value).splitlines()] == [
        "engines.medversa.weights", "engines.medversa.precision", "engines.medversa.orientation",
    ]  # fmt: skip
