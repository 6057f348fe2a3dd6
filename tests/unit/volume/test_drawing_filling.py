"""Which pixels lie within what somebody traced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointing import seen_from_within

from volume.drawings.filling import filled, filled_ellipse, is_rectangle

SHAPE = (24, 30)


@settings(max_examples=60, deadline=None)
@given(
    radii=st.lists(st.floats(1.5, 14), min_size=3, max_size=24),
    centre=st.tuples(st.floats(2, 21), st.floats(2, 27)),
)
def test_a_polygon_is_filled_as_the_angles_say(radii: list[float], centre: tuple[float, float]) -> None:
    """Star-shaped polygons of any kind, also beyond the image; the other way goes by angles, not by sides."""
    turn = 2 * np.pi * np.arange(len(radii)) / len(radii) + 0.123
    outline = np.add(centre, np.stack([np.sin(turn), np.cos(turn)], axis=1) * np.array(radii)[:, None])
    found, expected = filled(outline, SHAPE), seen_from_within(outline, SHAPE)
    near = distance_to_outline(outline) < 1e-6
    np.testing.assert_array_equal(found[~near], expected[~near])


def distance_to_outline(outline: np.ndarray) -> np.ndarray:
    centres = np.moveaxis(np.indices(SHAPE), 0, -1).astype(float)
    best = np.full(SHAPE, np.inf)
    for one, other in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        side = other - one
        along = ((centres - one) @ side / max(side @ side, 1e-12)).clip(0, 1)
        best = np.minimum(best, np.linalg.norm(centres - one - along[..., None] * side, axis=-1))
    return best


def test_a_square_along_pixel_edges_is_these_pixels() -> None:
    """Corners of pixels, as SCOORD counts, are half a pixel beside centres."""
    found = filled(np.array([(1.5, 2.5), (1.5, 6.5), (4.5, 6.5), (4.5, 2.5)]), SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[2:5, 3:7] = True
    np.testing.assert_array_equal(found, expected)


def test_regions_side_by_side_share_no_pixel() -> None:
    left = filled(np.array([(2.0, 2.0), (2.0, 8.0), (9.0, 8.0), (9.0, 2.0)]), SHAPE)
    right = filled(np.array([(2.0, 8.0), (2.0, 12.0), (9.0, 12.0), (9.0, 8.0)]), SHAPE)
    assert not (left & right).any()
    assert (left | right).sum() == 7 * 10


def test_a_keyhole_leaves_its_hole() -> None:
    outer = [(1.5, 1.5), (1.5, 11.5), (11.5, 11.5), (11.5, 1.5)]
    inner = [(4.5, 4.5), (8.5, 4.5), (8.5, 8.5), (4.5, 8.5)]
    found = filled(np.array([*outer, outer[0], *inner, inner[0], outer[0]]), SHAPE)
    assert found.sum() == 10 * 10 - 4 * 4
    assert not found[6, 6]


def test_an_ellipse_has_the_area_of_an_ellipse() -> None:
    turned = np.array([(6.0, 5.0), (-3.0, 3.6)])
    found = filled_ellipse(np.array([11.3, 14.2]), turned, SHAPE)
    assert found.sum() == pytest.approx(np.pi * abs(np.linalg.det(turned)), rel=0.05)
    assert found[round(11.3 + 5.8), round(14.2 + 4.8)]
    assert not found[round(11.3 + 6.4), round(14.2 + 5.6)]
    assert not filled_ellipse(np.array([5.0, 5.0]), np.zeros((2, 2)), SHAPE).any()


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([(1, 2), (1, 9), (5, 9), (5, 2)], True),
        ([(1, 2), (5, 2), (5, 9.004), (1, 9), (1, 2)], True),
        ([(1, 2), (1, 9), (5, 9.5), (5, 2)], False),
        ([(3, 2), (1, 5), (3, 8), (5, 5)], False),
        ([(1, 2), (1, 9), (5, 9)], False),
        ([(1, 2), (1, 5), (1, 9), (5, 9), (5, 2)], False),
    ],
)
def test_a_rectangle_is_told_from_what_was_traced(corners: list[tuple[float, float]], expected: bool) -> None:
    assert is_rectangle(np.array(corners, float)) is expected
