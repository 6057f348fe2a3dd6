"""The geometry of a stack, by headers alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import ct_series, headers_of, moved, mr_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import Refusal, RefusalCode, Stack
from domain.volume import FloatArray
from volume.geometry import StackGeometry, geometry


def proven(headers: list[Header]) -> StackGeometry:
    return geometry(Stack(name="", headers=tuple(headers)))


def refused(headers: list[Header]) -> AssemblyError:
    with pytest.raises(AssemblyError) as caught:
        proven(headers)
    return caught.value


def test_affine_maps_slice_row_and_column_to_the_centre_of_a_voxel() -> None:
    grid = proven(headers_of(ct_series(4, spacing_mm=2.5, in_plane_spacing_mm=(0.7, 0.8)))).grid
    assert grid.shape == (4, 16, 20)
    # (0028,0030) is the spacing of rows, then of columns: 0.7 mm to the next row, 0.8 mm to the next column.
    np.testing.assert_allclose(grid.to_lps((0, 0, 0)), (-10, -20, 30))
    np.testing.assert_allclose(grid.to_lps((1, 0, 0)), (-10, -20, 32.5))
    np.testing.assert_allclose(grid.to_lps((0, 1, 0)), (-10, -19.3, 30))
    np.testing.assert_allclose(grid.to_lps((0, 0, 1)), (-9.2, -20, 30))
    np.testing.assert_allclose(grid.spacing_mm, (2.5, 0.7, 0.8))


def test_slices_are_sorted_by_position_whatever_their_numbers_say() -> None:
    series = ct_series(6)
    random.Random(1).shuffle(series)
    for number, ds in enumerate(series, start=1):
        ds.InstanceNumber = number
        ds.SliceLocation = str(-number)
    ordered = proven(headers_of(series)).headers
    heights = [h.image_position_mm[2] for h in ordered if h.image_position_mm]
    assert heights == sorted(heights)
    assert len(heights) == 6


def test_slices_ascend_along_the_normal_and_the_grid_is_right_handed() -> None:
    flipped = ct_series(5, orientation=(-1, 0, 0, 0, 1, 0))
    grid = proven(headers_of(flipped)).grid
    step, row, column = grid.affine[:3, 0], grid.affine[:3, 1], grid.affine[:3, 2]
    assert step[2] == pytest.approx(-2.5)
    assert np.linalg.det(np.column_stack((column, row, step))) > 0


@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    spacing_mm=st.floats(0.3, 10),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_any_oblique_stack_round_trips_in_any_order(
    angles: tuple[float, float, float], spacing_mm: float, origin: tuple[float, float, float], seed: int
) -> None:
    axes = rotation(*angles)
    series = ct_series(
        5, spacing_mm=spacing_mm, origin_mm=origin, orientation=[*axes[:, 0].tolist(), *axes[:, 1].tolist()]
    )
    headers = headers_of(series)
    grid = proven(headers).grid
    for k, header in enumerate(headers):
        assert grid.to_lps((k, 0, 0)) == pytest.approx(np.array(header.image_position_mm), abs=1e-5)
    points = np.random.default_rng(seed).uniform(-3, 30, (10, 3))
    np.testing.assert_allclose(grid.to_index(grid.to_lps(points)), points, atol=1e-6)
    random.Random(seed).shuffle(headers)
    np.testing.assert_array_equal(proven(headers).grid.affine, grid.affine)


def rotation(a: float, b: float, c: float) -> FloatArray:
    def about(axis: int, angle: float) -> FloatArray:
        turned = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turned[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        return turned

    product: FloatArray = about(0, a) @ about(1, b) @ about(2, c)
    return product


@pytest.mark.parametrize(
    ("keyword", "code"),
    [
        ("ImagePositionPatient", RefusalCode.NO_POSITION),
        ("ImageOrientationPatient", RefusalCode.NO_ORIENTATION),
        ("PixelSpacing", RefusalCode.NO_PIXEL_SPACING),
        ("FrameOfReferenceUID", RefusalCode.NO_FRAME_OF_REFERENCE),
        ("Rows", RefusalCode.UNSUPPORTED_PIXELS),
        ("PixelData", RefusalCode.PIXELS_UNREADABLE),
    ],
)
def test_a_missing_attribute_is_refused_and_its_slice_named(keyword: str, code: RefusalCode) -> None:
    series = ct_series(4)
    delattr(series[2], keyword)
    error = refused(headers_of(series))
    assert (error.code, error.instance_numbers) == (code, (3,))
    assert keyword in str(error)
    assert "InstanceNumber 3" in str(error)


def test_imager_pixel_spacing_does_not_stand_in_for_pixel_spacing() -> None:
    series = ct_series(3)
    for ds in series:
        ds.ImagerPixelSpacing = ds.PixelSpacing
        del ds.PixelSpacing
    assert refused(headers_of(series)).code == RefusalCode.NO_PIXEL_SPACING


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0.01, 1, 0), (1.01, 0, 0, 0, 1, 0), (1, 0, 0, 1, 0, 0)])
def test_directions_that_are_not_orthonormal_are_refused(orientation: tuple[float, ...]) -> None:
    series = ct_series(3)
    for ds in series:
        ds.ImageOrientationPatient = list(orientation)
    assert refused(headers_of(series)).code == RefusalCode.ORIENTATION_NOT_ORTHONORMAL


def turn(ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0.9988, 0.05]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (turn, RefusalCode.MIXED_ORIENTATION),
        (lambda ds: setattr(ds, "FrameOfReferenceUID", generate_uid()), RefusalCode.MIXED_FRAME_OF_REFERENCE),
        (lambda ds: setattr(ds, "StudyInstanceUID", generate_uid()), RefusalCode.MIXED_STUDY),
        (lambda ds: setattr(ds, "Rows", 8), RefusalCode.MIXED_MATRIX),
        (lambda ds: setattr(ds, "PixelSpacing", [0.7, 0.81]), RefusalCode.MIXED_PIXEL_SPACING),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"), RefusalCode.MIXED_PIXEL_FORMAT),
        (lambda ds: setattr(ds, "RescaleType", "US"), RefusalCode.MIXED_PIXEL_FORMAT),
        (lambda ds: delattr(ds, "RescaleSlope"), RefusalCode.MIXED_PIXEL_FORMAT),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "RGB"), RefusalCode.UNSUPPORTED_PIXELS),
        (lambda ds: setattr(ds, "SamplesPerPixel", 3), RefusalCode.UNSUPPORTED_PIXELS),
        (lambda ds: setattr(ds, "BitsAllocated", 32), RefusalCode.UNSUPPORTED_PIXELS),
        (lambda ds: setattr(ds, "HighBit", 16), RefusalCode.UNSUPPORTED_PIXELS),
        (lambda ds: setattr(ds, "RescaleSlope", "0"), RefusalCode.UNSUPPORTED_PIXELS),
        (lambda ds: setattr(ds, "ModalityLUTSequence", [Dataset()]), RefusalCode.MODALITY_LUT_CONFLICT),
    ],
)
def test_a_slice_unlike_the_others_is_refused_and_named(change: Callable[[Dataset], Any], code: RefusalCode) -> None:
    series = ct_series(5)
    change(series[0])
    error = refused(headers_of(series))
    assert (error.code, error.instance_numbers) == (code, (1,))


def test_one_slice_is_no_volume_whatever_its_thickness() -> None:
    error = refused(headers_of(ct_series(1)))
    assert (error.code, error.instance_numbers) == (RefusalCode.SINGLE_SLICE, (1,))


def test_missing_slices_are_counted_and_located() -> None:
    series = [ds for ds in ct_series(20) if ds.InstanceNumber not in (6, 12, 13)]
    error = refused(headers_of(series))
    assert error.code == RefusalCode.MISSING_SLICES
    assert error.instance_numbers == (5, 7, 11, 14)
    assert "3 slices missing: 1 between InstanceNumber 5 and 7, 2 between InstanceNumber 11 and 14" in str(error)


def test_one_missing_slice_in_a_short_series_is_found() -> None:
    error = refused(headers_of([ds for ds in ct_series(4) if ds.InstanceNumber != 2]))
    assert error.code == RefusalCode.MISSING_SLICES
    assert "1 slice missing" in str(error)


@pytest.mark.parametrize(
    "steps",
    [
        [2.5] * 6 + [5.0] * 5,  # two spacings, one twice the other: not a loss of slices
        [2.5] * 5 + [3.7] * 6,
        [2.5, 2.5, 3.1, 2.5, 2.5],
        list(np.linspace(2.5, 2.7, 12)),
    ],
)
def test_variable_spacing_is_refused(steps: list[float]) -> None:
    series = ct_series(len(steps) + 1)
    heights = np.concatenate(([0.0], np.cumsum(steps)))
    for ds, height in zip(series, heights, strict=True):
        ds.ImagePositionPatient = [-10, -20, f"{height:.6f}"]
    error = refused(headers_of(series))
    assert error.code == RefusalCode.VARIABLE_SPACING
    assert error.instance_numbers


def test_deviations_that_add_up_are_refused_though_each_step_is_within_tolerance() -> None:
    series = ct_series(60)
    for k, ds in enumerate(series):
        ds.ImagePositionPatient = [-10, -20, f"{2.5 * k + 0.001 * k * k:.6f}"]
    assert refused(headers_of(series)).code == RefusalCode.VARIABLE_SPACING


def test_jitter_within_tolerance_passes_and_is_reported() -> None:
    jitter = 0.05 * np.array([1, -1, 1, 0, -1, 1, 1, -1, 0, 1, -1, -1])
    series = moved(ct_series(12, spacing_mm=2.5), np.outer(jitter, (0, 0, 1)))
    found = proven(headers_of(series))
    assert found.grid.spacing_mm[0] == pytest.approx(2.5, abs=0.02)
    assert 0.03 < found.deviation_mm < 0.1


def test_positions_rounded_to_two_decimals_pass() -> None:
    series = ct_series(299)
    for k, ds in enumerate(series):
        ds.ImagePositionPatient = [-10, -20, f"{3.375 * k:.2f}"]
    assert proven(headers_of(series)).grid.spacing_mm[0] == pytest.approx(3.375, abs=1e-4)


def test_two_slices_at_one_position_are_refused_and_named() -> None:
    series = ct_series(6)
    series[3].ImagePositionPatient = series[2].ImagePositionPatient
    error = refused(headers_of(series))
    assert (error.code, error.instance_numbers) == (RefusalCode.DUPLICATE_POSITION, (3, 4))


@pytest.mark.parametrize("tilt_deg", [15.0, -16.5, 0.5])
def test_gantry_tilt_is_refused_though_the_attribute_is_absent(tilt_deg: float) -> None:
    shear = np.outer(np.arange(10) * 2.5 * np.tan(np.radians(tilt_deg)), (0, 1, 0))
    error = refused(headers_of(moved(ct_series(10), shear)))
    assert error.code == RefusalCode.GANTRY_TILT
    assert f"{abs(tilt_deg):.1f} degrees" in str(error)


def test_a_stack_that_drifts_along_its_rows_is_refused() -> None:
    error = refused(headers_of(moved(mr_series(8), np.outer(np.arange(8), (0.5, 0, 0)))))
    assert error.code == RefusalCode.IN_PLANE_DRIFT


def test_one_slice_shifted_sideways_is_refused_and_named() -> None:
    offsets = np.zeros((30, 3))
    offsets[20, 1] = 4.0
    error = refused(headers_of(moved(ct_series(30), offsets)))
    assert (error.code, error.instance_numbers) == (RefusalCode.IN_PLANE_DRIFT, (21,))


def test_wrong_thickness_and_spacing_in_the_header_are_ignored() -> None:
    series = ct_series(4, spacing_mm=2.5)
    for ds in series:
        ds.SliceThickness, ds.SpacingBetweenSlices = "1", "5"
    assert proven(headers_of(series)).grid.spacing_mm[0] == pytest.approx(2.5)


def test_a_refused_stack_is_refused_again_for_the_same_reason() -> None:
    refusal = Refusal(code=RefusalCode.LOCALIZER, reason="a localizer", instance_numbers=(1,))
    with pytest.raises(AssemblyError, match="a localizer") as caught:
        geometry(Stack(name="", headers=tuple(headers_of(ct_series(3))), refusal=refusal))
    assert caught.value.code == RefusalCode.LOCALIZER


def test_a_message_lists_ranges_and_survives_absent_instance_numbers() -> None:
    headers = [replace(h, pixel_spacing_mm=None) for h in headers_of(ct_series(40))]
    assert "InstanceNumber 1 to 40)" in str(refused(headers))
    unnamed = [replace(h, instance_number=None) for h in headers]
    error = refused(unnamed)
    assert error.instance_numbers == ()
    assert "without an InstanceNumber" in str(error)
    every_other = [
        replace(h, image_position_mm=None) if k % 2 else h for k, h in enumerate(headers_of(ct_series(40)))
    ]
    assert "InstanceNumber 2, 4, 6, 8, 10, 12, 14, 16 and others" in str(refused(every_other))


def test_missing_slices_between_unnumbered_instances_are_still_refused() -> None:
    headers = [replace(h, instance_number=None) for h in headers_of(ct_series(9))]
    assert "no InstanceNumber" in str(refused(headers[:4] + headers[5:]))


def test_many_holes_are_summarised() -> None:
    headers = headers_of(ct_series(60))
    left = [h for k, h in enumerate(headers) if k % 7 != 3]
    error = refused(left)
    assert error.code == RefusalCode.MISSING_SLICES
    assert "at 2 more places" in str(error)
    assert len(error.instance_numbers) == 16


def test_a_stack_without_instances_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one"):
        geometry(Stack(name="", headers=()))
