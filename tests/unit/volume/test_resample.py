"""Resampling of tilted and unevenly spaced slices, and the way back: a ball stays where it is and as large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from factories import headers_of, save
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from irregular import EDGE_HU, Phantom, by_gaps, evenly, phantom

from domain.codes import MILLILITRE, MILLIMETRE, Code
from domain.errors import AssemblyError
from domain.findings import Detection, Findings, Measurement, SegmentDescription
from domain.prompt import Box, LongAxis, ObjectPrompt, Point, Prompt, SliceMask, Space
from domain.series import RefusalCode, Resample, Stack
from domain.volume import Grid, Volume
from volume.assembly import assemble
from volume.geometry import geometry
from volume.grouping import group
from volume.onto_source import findings_on_source
from volume.resample import Resampling, prompt_on_regular, resampled, resampling_of

TILT, VARIABLE = (Resample.GANTRY_TILT,), (Resample.VARIABLE_SPACING,)
BOTH = (*TILT, *VARIABLE)
BALL = SegmentDescription(
    key="ball", label="Ball", category=Code("C", "99T", "Category"), type=Code("T", "99T", "Type")
)
SMOOTH = by_gaps([2.0, 2.1, 2.25, 2.4, 2.6, 2.8, 3.0, 3.0, 2.8, 2.6, 2.4, 2.25, 2.1, 2.0, 2.0])
STEPPED = by_gaps([1.5] * 8 + [4.0] * 3 + [2.5] * 6)


def planned(found: Phantom, allowed: tuple[Resample, ...]) -> tuple[Stack, Resampling]:
    stack = Stack(name="", headers=tuple(headers_of(found.series)))
    return stack, resampling_of(geometry(stack, allowed))


def volume_of(found: Phantom, folder: Path, allowed: tuple[Resample, ...]) -> Volume:
    stack = Stack(name="", headers=tuple(headers_of(found.series)))
    paths = save(found.series, folder)
    return assemble(
        stack, {str(ds.SOPInstanceUID): path for ds, path in zip(found.series, paths, strict=True)}, allowed
    )


def voxels_of(found: Phantom, plan: Resampling) -> npt.NDArray[np.int16]:
    source = np.stack([ds.pixel_array for ds in found.series]).astype(np.int16)
    voxels = resampled(source, plan, -1024)
    assert voxels.dtype == np.int16
    return voxels.astype(np.int16)


def place_and_size(mask: npt.NDArray[np.bool_], grid: Grid) -> tuple[npt.NDArray[np.float64], float]:
    """Return centroid in mm and volume in ml, each voxel weighted by what its slice stands for."""
    index = np.argwhere(mask)
    weights = grid.voxel_volumes_ml[index[:, 0]]
    return (grid.to_lps(index) * weights[:, None]).sum(axis=0) / weights.sum(), float(weights.sum())


def check_both_ways(found: Phantom, allowed: tuple[Resample, ...], *, rel: float = 0.02) -> None:
    _, plan = planned(found, allowed)
    mask = voxels_of(found, plan) > EDGE_HU
    centroid, volume_ml = place_and_size(mask, plan.regular)
    assert np.linalg.norm(centroid - found.centre_mm) < 0.5
    assert volume_ml == pytest.approx(found.volume_ml, rel=rel)
    assert plan.regular.voxel_volume_ml * mask.sum() == pytest.approx(found.volume_ml, rel=rel)
    back = findings_on_source(Findings(labels=mask.astype(np.uint8), segments=(BALL,)), plan)
    assert back.labels is not None
    assert back.labels.shape == plan.source.shape
    centroid, volume_ml = place_and_size(back.labels == 1, plan.source)
    assert np.linalg.norm(centroid - found.centre_mm) < 0.5
    assert volume_ml == pytest.approx(found.volume_ml, rel=rel)


@pytest.mark.parametrize("tilt_deg", [-30.0, -16.5, -3.0, 0.5, 8.0, 16.5, 30.0])
def test_a_ball_in_tilted_slices_keeps_place_and_volume_there_and_back(tilt_deg: float) -> None:
    check_both_ways(phantom(evenly(24, 2.0), tilt_deg=tilt_deg), TILT)


@pytest.mark.parametrize("along", [SMOOTH, STEPPED, by_gaps([3.0] * 8 + [1.0] * 26)], ids=["smooth", "steps", "3to1"])
def test_a_ball_in_unevenly_spaced_slices_keeps_place_and_volume_there_and_back(along: list[float]) -> None:
    check_both_ways(phantom(along), VARIABLE)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None, phases=[Phase.generate])
@given(
    turn=st.tuples(*(st.floats(-1, 1) for _ in range(4))).filter(lambda q: np.linalg.norm(q) > 0.1),
    tilt_deg=st.one_of(st.just(0.0), st.floats(1, 30), st.floats(-30, -1)),
    ratios=st.lists(st.floats(0.9, 1.1), min_size=34, max_size=34),
    off=st.tuples(*(st.floats(-3, 3) for _ in range(3))),
)
def test_any_direction_tilt_and_smooth_spacing_keeps_place_and_volume(
    turn: tuple[float, ...], tilt_deg: float, ratios: list[float], off: tuple[float, ...]
) -> None:
    w, x, y, z = np.asarray(turn) / np.linalg.norm(turn)
    row = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    column = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    gaps = np.clip(1.5 * np.cumprod(ratios), 1.2, 1.8)  # 41 mm at least, so that the ball is inside
    along = by_gaps(gaps.tolist())
    found = phantom(along, tilt_deg=tilt_deg, orientation=[*row, *column], off_centre_mm=off, radius_mm=16.0)
    check_both_ways(found, BOTH, rel=0.03)  # both faults, no slice through the poles: voxels count


def test_both_faults_at_once_are_taken_out_where_both_are_allowed() -> None:
    found = phantom(STEPPED, tilt_deg=-12.0)
    check_both_ways(found, BOTH)
    for allowed, code in ((TILT, RefusalCode.VARIABLE_SPACING), (VARIABLE, RefusalCode.GANTRY_TILT)):
        with pytest.raises(AssemblyError) as refused:
            planned(found, allowed)
        assert refused.value.code == code


def test_the_regular_grid_is_orthogonal_and_covers_every_source_slice() -> None:
    _, plan = planned(phantom(evenly(24, 2.0), tilt_deg=16.5), TILT)
    axes = plan.regular.affine[:3, :3] / plan.regular.spacing_mm
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert plan.regular.spacing_mm == pytest.approx((2.0, 0.9, 0.8))
    rows = 64 + int(np.ceil(23 * 2.0 * np.tan(np.radians(16.5)) / 0.9))
    assert plan.regular.shape == (24, rows, 60)
    for corner in [(k, r, c) for k in (0, 23) for r in (0, 63) for c in (0, 59)]:
        index = plan.regular.to_index(plan.source.to_lps(corner))
        assert np.all(index > -1e-6)
        assert np.all(index < np.array(plan.regular.shape) - 1 + 1e-6)
    assert plan.tilt_deg == pytest.approx(16.5, abs=0.01)


def test_unevenly_spaced_slices_get_the_smallest_distance_and_both_ends_stay() -> None:
    _, plan = planned(phantom(STEPPED), VARIABLE)
    assert plan.regular.spacing_mm[0] == pytest.approx(STEPPED[-1] / np.ceil(STEPPED[-1] / 1.5))
    assert plan.regular.along_mm[-1] == pytest.approx(plan.source.along_mm[-1])
    assert plan.regular.to_lps((0, 0, 0)) == pytest.approx(plan.source.to_lps((0, 0, 0)))


def test_values_of_an_untilted_slice_are_kept_exactly_and_room_beside_the_source_is_air() -> None:
    found = phantom(evenly(12, 2.0), tilt_deg=10.0)
    _, plan = planned(found, TILT)
    voxels = voxels_of(found, plan)
    assert np.array_equal(voxels[0, :64], found.series[0].pixel_array)
    assert (voxels[0, 64:] == -1024).all()
    assert (voxels[-1, : plan.regular.shape[1] - 64 - 1] == -1024).all()


def test_assembly_gives_a_regular_volume_with_the_nearest_instance_behind_each_slice(tmp_path: Path) -> None:
    found = phantom(STEPPED, tilt_deg=5.0)
    volume = volume_of(found, tmp_path, BOTH)
    assert volume.grid.positions_mm is None
    assert volume.unit == "HU"
    assert volume.padding_value == -1024
    assert volume.sop_instance_uids[0] == found.series[0].SOPInstanceUID
    assert volume.sop_instance_uids[-1] == found.series[-1].SOPInstanceUID
    assert set(volume.sop_instance_uids) == {str(ds.SOPInstanceUID) for ds in found.series}


def test_a_regular_stack_stays_as_it_is_whatever_is_allowed(tmp_path: Path) -> None:
    found = phantom(evenly(12, 2.0))
    stack = Stack(name="", headers=tuple(headers_of(found.series)))
    assert geometry(stack, BOTH).resample == frozenset()
    volume = volume_of(found, tmp_path, BOTH)
    assert np.array_equal(volume.voxels, np.stack([ds.pixel_array for ds in found.series]))


@pytest.mark.parametrize(
    ("gaps", "code"),
    [
        ([2.0] * 6 + [4.0] + [2.0] * 6, RefusalCode.MISSING_SLICES),
        ([2.0] * 6 + [4.0, 4.0] + [2.0] * 6, RefusalCode.MISSING_SLICES),
        ([2.0] * 6 + [5.0] + [2.0] * 6, RefusalCode.VARIABLE_SPACING),
        ([2.0] * 12 + [3.5], RefusalCode.VARIABLE_SPACING),
        ([1.0] * 6 + [3.1] * 6, RefusalCode.VARIABLE_SPACING),
        ([5.0] * 6 + [10.5] * 6, RefusalCode.VARIABLE_SPACING),
    ],
    ids=["one missing", "two missing", "lone gap", "lone gap at the end", "over 3 to 1", "over 10 mm"],
)
def test_holes_and_gaps_beyond_the_limits_stay_refused(gaps: list[float], code: RefusalCode) -> None:
    with pytest.raises(AssemblyError) as refused:
        planned(phantom(by_gaps(gaps)), BOTH)
    assert refused.value.code == code


def test_a_hole_in_tilted_slices_stays_refused() -> None:
    with pytest.raises(AssemblyError) as refused:
        planned(phantom(by_gaps([2.0] * 6 + [4.0] + [2.0] * 6), tilt_deg=10.0), BOTH)
    assert refused.value.code == RefusalCode.MISSING_SLICES


def test_a_tilt_beyond_what_a_gantry_can_stays_refused() -> None:
    with pytest.raises(AssemblyError) as refused:
        planned(phantom(evenly(12, 2.0), tilt_deg=40.0), BOTH)
    assert refused.value.code == RefusalCode.GANTRY_TILT


def test_a_sideways_drift_of_mr_slices_is_no_tilt_to_take_out() -> None:
    found = phantom(evenly(12, 2.0), tilt_deg=10.0)
    for ds in found.series:
        ds.Modality = "MR"
    with pytest.raises(AssemblyError) as refused:
        planned(found, BOTH)
    assert refused.value.code == RefusalCode.IN_PLANE_DRIFT


def test_a_tilted_stack_of_two_kernels_is_refused_for_the_kernels() -> None:
    found = phantom(evenly(12, 2.0), tilt_deg=10.0)
    found.series[3].ConvolutionKernel = "B70f"
    (stack,) = group(headers_of(found.series))
    assert stack.refusal is not None
    assert stack.refusal.code == RefusalCode.AMBIGUOUS_STACK


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_positions_on_uneven_slices_go_to_indices_and_back(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.floats(0.5, 5.0), min_size=2, max_size=8))
    tilt = data.draw(st.floats(-30, 30))
    places = np.asarray(by_gaps(gaps))
    positions = np.outer(places, [0.0, np.tan(np.radians(tilt)), 1.0]) + np.array([5.0, 6.0, 7.0])
    affine = np.eye(4)[:, [2, 1, 0, 3]]
    affine[:3, 3], affine[2, 0] = positions[0], places[-1] / len(gaps)
    grid = Grid(shape=(len(places), 8, 9), affine=affine, frame_of_reference_uid="1.2", positions_mm=positions)
    index = np.array(data.draw(st.lists(st.tuples(*(st.floats(-2, 9) for _ in range(3))), min_size=1, max_size=5)))
    assert np.allclose(grid.to_index(grid.to_lps(index)), index, atol=1e-6)
    for k, position in enumerate(positions):
        assert np.allclose(grid.to_lps((k, 0, 0)), position, atol=1e-9)
    assert grid.voxel_volumes_ml.sum() == pytest.approx((places[-1] + (gaps[0] + gaps[-1]) / 2) / 1000)


def test_overlapping_masks_and_probabilities_come_back_too() -> None:
    found = phantom(SMOOTH, tilt_deg=8.0)
    _, plan = planned(found, BOTH)
    voxels = voxels_of(found, plan)
    masks = (voxels > EDGE_HU, voxels > -900)
    probabilities = tuple(((voxels + 1000) / 1100).clip(0, 1).astype(np.float32) for _ in masks)
    segments = (BALL, SegmentDescription(key="more", label="More", category=BALL.category, type=BALL.type))
    back = findings_on_source(
        Findings(labels=None, masks=masks, probabilities=probabilities, segments=segments), plan
    )
    assert back.labels is None
    assert back.shape == plan.source.shape
    assert (back.masks[0] <= back.masks[1]).mean() > 0.999
    centroid, volume_ml = place_and_size(back.masks[0], plan.source)
    assert np.linalg.norm(centroid - found.centre_mm) < 0.5
    assert volume_ml == pytest.approx(found.volume_ml, rel=0.02)
    assert np.mean((back.probabilities[0] > 0.5) == back.masks[0]) > 0.995


def test_what_shows_on_no_source_slice_is_put_on_the_nearest_one() -> None:
    _, plan = planned(phantom(by_gaps([1.0] * 10 + [3.0] * 5)), VARIABLE)
    labels = np.zeros(plan.regular.shape, np.uint8)
    between = int(np.argmin(np.abs(plan.regular.along_mm - 14.0)))  # 13 and 16 mm have slices, 14 mm has none
    labels[between, 20:22, 30:33] = 1
    back = findings_on_source(Findings(labels=labels, segments=(BALL,)), plan)
    assert back.labels is not None
    assert [tuple(place) for place in np.argwhere(back.labels)] == [
        (11, row, column) for row in (20, 21) for column in (30, 31, 32)
    ]


def test_points_and_boxes_move_with_the_slices_and_a_statement_names_the_grid() -> None:
    found = phantom(evenly(24, 2.0), tilt_deg=16.5)
    _, plan = planned(found, TILT)
    at = (23.0, 40.0, 10.0)
    ends = Measurement(
        segment="ball",
        concept=Code("L", "99T", "Length"),
        value=4.0,
        unit=MILLIMETRE,
        points=(at, (23.0, 44.5, 10.0)),
    )
    volume = Measurement(segment="ball", concept=Code("V", "99T", "Volume"), value=1.0, unit=MILLILITRE)
    detected = Detection(
        key="one", label="One", category=BALL.category, type=BALL.type, box=(5.0, 30.0, 9.0, 33.0), image=23
    )
    findings = Findings(labels=None, segments=(BALL,), measurements=(ends, volume), detections=(detected,))
    back = findings_on_source(findings, plan)
    assert np.allclose(plan.source.to_lps(back.measurements[0].points[0]), plan.regular.to_lps(at), atol=1e-6)
    assert back.measurements[1] == volume
    row = float(plan.shift[23, 0])
    assert back.detections[0].box == pytest.approx((5.0, 30.0 - row, 9.0, 33.0 - row))
    said = back.evaluations[-1].value
    assert isinstance(said, str)
    assert "tilted by 16.5 degrees" in said
    assert "0.8 x 0.9 x 2 mm" in said


def test_who_points_at_source_slices_points_at_the_same_place_of_the_regular_volume() -> None:
    found = phantom(STEPPED, tilt_deg=-10.0)
    _, plan = planned(found, BOTH)
    mask = np.zeros(plan.source.shape[1:], np.bool_)
    mask[10:14, 20:22] = True
    corners = ((12.0, 5.0, 6.0), (12.0, 15.0, 16.0))
    drawn = ObjectPrompt(
        boxes=(Box(corners=corners),),
        long_axes=(LongAxis(ends=corners),),
        points=(Point(at=(3.0, 8.0, 9.0)),),
        masks=(SliceMask(slice=7, pixels=mask),),
    )
    moved = prompt_on_regular(Prompt(objects=(drawn,), space=Space.VOXEL), plan).on(plan.regular)
    half = plan.regular.spacing_mm[0] / 2 + 1e-6
    pairs = [
        (moved.objects[0].points[0].at, (3.0, 8.0, 9.0)),
        *zip(moved.objects[0].boxes[0].corners, corners, strict=True),
        *zip(moved.objects[0].long_axes[0].ends, corners, strict=True),
    ]
    for there, here in pairs:
        offset = plan.regular.to_lps(there) - plan.source.to_lps(here)
        assert abs(offset @ plan.source.normal) <= half
        assert np.linalg.norm(offset - offset @ plan.source.normal * plan.source.normal) < 1e-6
    (on_slice,) = moved.objects[0].masks
    row, column = np.argwhere(on_slice.pixels).mean(axis=0)
    offset = plan.regular.to_lps((on_slice.slice, row, column)) - plan.source.to_lps((7, 11.5, 20.5))
    assert np.abs(offset).max() < half + 0.5
