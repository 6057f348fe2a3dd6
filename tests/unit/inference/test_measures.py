"""Diameters and their ends."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from chests import volume_of
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.findings import Measurement
from domain.volume import Grid
from inference.measures import diameters
from volume.diameters import long_axis, short_axis

SHAPE = (4, 40, 56)


def grid(row_mm: float = 1.0, column_mm: float = 1.0) -> Grid:
    return volume_of(np.zeros(SHAPE, np.int16), np.diag([3.0, row_mm, column_mm, 1])).grid


def ellipse(half_rows: float, half_columns: float) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    inside: np.ndarray = ((rows - 20) / half_rows) ** 2 + ((columns - 28) / half_columns) ** 2 <= 1
    return inside


def measured(mask: np.ndarray, on: Grid | None = None) -> list[Measurement]:
    return list(diameters("object", mask, (on or grid()).spacing_mm[1:]))


def test_an_ellipse_has_its_axes_with_their_ends_in_voxels() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1], mask[2] = ellipse(6, 12), ellipse(5, 9)
    long, short = measured(mask)
    # A pixel reaches to the middle of its sides
    assert [long.value, short.value] == pytest.approx([25, 13], abs=0.05)
    assert np.allclose(np.mean(long.points, axis=0), (1, 20, 28))
    assert np.allclose(np.ptp(np.array(long.points), axis=0), (0, 0, 25))
    assert np.allclose(np.ptp(np.array(short.points), axis=0), (0, 13, 0), atol=0.05)


def test_pixels_that_are_not_square_count_in_mm() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[0] = ellipse(10, 10)
    long, short = measured(mask, grid(2.0, 0.5))
    assert [long.value, short.value] == pytest.approx([42, 10.5], abs=0.1)
    spacing = np.array((3.0, 2.0, 0.5))
    for item in (long, short):
        first, second = np.array(item.points) * spacing
        assert np.linalg.norm(second - first) == pytest.approx(item.value)


def test_one_voxel_is_measured_and_none_is_not() -> None:
    mask = np.zeros(SHAPE, bool)
    assert measured(mask) == []
    mask[3, 5, 7] = True
    long, short = measured(mask)
    assert long.value == pytest.approx(1)
    assert 0 < short.value <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), row_mm=st.floats(0.3, 3), column_mm=st.floats(0.3, 3))
def test_the_short_axis_is_at_right_angles_inside_the_hull_and_the_longest_there(
    seed: int, row_mm: float, column_mm: float
) -> None:
    mask = np.random.default_rng(seed).random((9, 11)) > 0.8
    mask[4, 5] = True
    along = long_axis(mask, (row_mm, column_mm))
    across = short_axis(mask, (row_mm, column_mm), along)
    scale = np.array((column_mm, row_mm))
    line, other = (np.array(axis.ends) * scale for axis in (along, across))
    direction = (line[1] - line[0]) / along.length_mm
    step = other[1] - other[0]
    assert abs(step @ direction) < 1e-6
    assert np.linalg.norm(step) == pytest.approx(across.length_mm)
    assert across.length_mm <= along.length_mm + 1e-6
    # No two points of the mask that lie across are farther apart
    rows, columns = np.nonzero(mask)
    points = (np.column_stack([columns, rows]) + 0.5) * scale
    for one, two in combinations(points, 2):
        if abs((two - one) @ direction) < 1e-9:
            assert np.linalg.norm(two - one) <= across.length_mm + 1e-6
