"""Outlines of masks, and which slices show most."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from looking import ABNORMAL, LIVER, MASS, NODULE
from PIL import Image, ImageDraw

from dicom_out.keyslices import key_slices
from dicom_out.outline import outlines, smoothed
from domain.findings import Detection, Findings

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def area(ring: np.ndarray) -> float:
    """Return the signed area of a polygon."""
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_outlines_enclose_as_many_pixels_as_the_mask_has_holes_being_negative(mask: np.ndarray) -> None:
    rings = outlines(mask)
    assert sum(area(ring) for ring in rings) == mask.sum()
    for ring in rings:
        assert np.array_equal(ring[0], ring[-1])
        assert (np.diff(ring, axis=0) == 0).any(axis=1).all()  # along the sides of pixels only


@given(MASKS)
@settings(max_examples=40, deadline=None)
def test_a_smoothed_outline_stays_within_half_a_pixel(mask: np.ndarray) -> None:
    for ring in outlines(mask):
        steps = np.abs(np.diff(smoothed(ring), axis=0))
        assert (steps <= 1).all()
        assert np.array_equal(smoothed(ring)[0], smoothed(ring)[-1])


def test_a_disc_is_drawn_where_it_is() -> None:
    y, x = np.mgrid[:40, :50]
    mask = np.hypot(x - 30, y - 15) < 9
    (ring,) = outlines(mask)
    picture = Image.new("1", (500, 400))
    ImageDraw.Draw(picture).polygon([(float(a) * 10, float(b) * 10) for a, b in ring], fill=1)
    assert np.array_equal(np.asarray(picture)[5::10, 5::10], mask)


def test_key_slices_show_each_segment_where_it_is_large_and_are_spread() -> None:
    labels = np.zeros((60, 10, 10), np.uint8)
    labels[5:50, 2:8, 2:8] = 1
    labels[20, :9, :9] = 1
    labels[52:58, :2, :2] = 2
    labels[55, :4, :4] = 2
    chosen = key_slices(Findings(labels=labels, segments=(LIVER, NODULE)), 60, 4)
    assert {20, 55} <= set(chosen)
    assert len(chosen) == 4
    assert list(chosen) == sorted(set(chosen))
    assert max(chosen) - min(chosen) > 30


def test_key_slices_of_boxes_are_theirs_and_of_nothing_none() -> None:
    boxes = tuple(
        Detection(key=str(k), label="Mass", category=ABNORMAL, type=MASS, box=(0, 0, 1, 1), image=k) for k in (3, 8)
    )
    assert key_slices(Findings(labels=None, detections=boxes), 20, 4) == (3, 8)
    assert key_slices(Findings(labels=None), 20, 4) == ()
    assert key_slices(Findings(labels=np.zeros((5, 2, 2), np.uint8), segments=(LIVER,)), 5, 4) == ()


def test_overlapping_masks_are_counted_each() -> None:
    one, other = np.zeros((9, 4, 4), bool), np.zeros((9, 4, 4), bool)
    one[2], other[2, :2], other[7] = True, True, True
    assert set(key_slices(Findings(labels=None, segments=(LIVER, NODULE), masks=(one, other)), 9, 2)) == {2, 7}
