from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from chests import volume_of
from PIL import Image

from gateway.montage import TILE_PX, write_montage

RED, BLUE = (255, 0, 0), (0, 0, 255)
AXIAL_GRID = np.array([[0, 0, 2.0, -40], [0, 2.0, 0, -40], [4.0, 0, 0, 0], [0, 0, 0, 1]])


def picture_of(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


def split_in_x() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Label 1 where the patient's right is, 2 at the left."""
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[5:15, 10:30, 5:15], labels[5:15, 10:30, 25:35] = 1, 2
    return labels


def test_the_patients_right_is_on_the_left_of_every_tile(tmp_path: Path) -> None:
    volume = volume_of(np.full((20, 40, 40), -600, np.int16), AXIAL_GRID)
    write_montage(volume, split_in_x(), (RED, BLUE), tmp_path / "montage.png")
    tile = picture_of(tmp_path / "montage.png")[:TILE_PX, :TILE_PX].astype(int)
    middle = TILE_PX // 2
    assert (tile[:, :middle, 0] > tile[:, :middle, 2]).any()
    assert not (tile[:, :middle, 0] < tile[:, :middle, 2]).any()
    assert not (tile[:, middle:, 0] > tile[:, middle:, 2]).any()


def test_a_flipped_and_permuted_grid_gives_the_same_picture(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 200, (20, 40, 40)).astype(np.int16)
    write_montage(volume_of(voxels, AXIAL_GRID), split_in_x(), (RED, BLUE), tmp_path / "one.png")
    affine = AXIAL_GRID[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * 39
    affine[:3, 0] *= -1
    turned = voxels.transpose(2, 0, 1)[::-1]
    labels = split_in_x().transpose(2, 0, 1)[::-1]
    write_montage(volume_of(turned, affine), labels, (RED, BLUE), tmp_path / "two.png")
    assert np.array_equal(picture_of(tmp_path / "one.png"), picture_of(tmp_path / "two.png"))


def test_pixels_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    labels = np.zeros((20, 40, 40), np.uint8)
    write_montage(volume_of(np.zeros((20, 40, 40), np.int16), AXIAL_GRID), labels, (), tmp_path / "montage.png")
    height, width, _ = picture_of(tmp_path / "montage.png").shape
    assert width == 6 * TILE_PX
    assert height == 3 * TILE_PX + TILE_PX  # the coronal views are 20 x 4 mm high and 40 x 2 mm wide


def test_without_labels_the_picture_is_grey(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 200, (20, 40, 40)).astype(np.int16)
    write_montage(volume_of(voxels, AXIAL_GRID), None, (RED,), tmp_path / "montage.png")
    picture = picture_of(tmp_path / "montage.png")
    assert (picture[:, :, 0] == picture[:, :, 1]).all()
    assert (picture[:, :, 0] == picture[:, :, 2]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["montage.png"]


def test_values_without_a_unit_reach_from_black_to_white(tmp_path: Path) -> None:
    voxels = np.tile(np.linspace(0, 90, 40).astype(np.int16), (20, 40, 1))
    write_montage(replace(volume_of(voxels, AXIAL_GRID), unit=""), None, (), tmp_path / "montage.png")
    picture = picture_of(tmp_path / "montage.png")
    assert picture.min() == 0
    assert picture.max() > 250
