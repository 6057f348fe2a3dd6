from __future__ import annotations

import numpy as np
import pytest

from domain.volume import FloatArray, Grid
from volume.words import orientation_in_words, size_in_words


def grid(slice_step: tuple[float, ...], row_step: tuple[float, ...], column_step: tuple[float, ...]) -> Grid:
    """Return a grid by the steps between slices, rows and columns in mm."""
    affine: FloatArray = np.eye(4)
    affine[:3, :3] = np.stack([slice_step, row_step, column_step], axis=1)
    return Grid(shape=(40, 128, 256), affine=affine, frame_of_reference_uid="1.2.3")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (((0, 0, 2), (0, 1, 0), (1, 0, 0)), "axial, feet to head"),
        (((0, 0, -2), (0, 1, 0), (-1, 0, 0)), "axial, head to feet"),
        (((0, 2, 0), (0, 0, -1), (1, 0, 0)), "coronal, front to back"),
        (((2, 0, 0), (0, 0, -1), (0, -1, 0)), "sagittal, right to left"),
        (((0, -0.5176, 1.9319), (0, 0.9659, 0.2588), (1, 0, 0)), "axial tilted 15 degrees, feet to head"),
    ],
)
def test_names_plane_tilt_and_order(steps: tuple[tuple[float, ...], ...], words: str) -> None:
    assert orientation_in_words(grid(*steps)) == words


def test_names_columns_before_rows_before_slices() -> None:
    assert size_in_words(grid((0, 0, 2.5), (0, 0.8, 0), (0.7, 0, 0))) == "256 x 128 x 40, 0.7 x 0.8 x 2.5 mm"
