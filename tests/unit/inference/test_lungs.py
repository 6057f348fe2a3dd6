from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from chests import ChestVolume, Voxels, chest_volume, dice, lungs_in, millilitres, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.codes import Code
from domain.context import StudyContext
from domain.errors import NotApplicable
from domain.findings import Findings
from domain.volume import Volume

VOLUME = Code("118565006", "SCT", "Volume")
INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
NOT_VISUALIZED = Code("122288", "DCM", "Not visualized")


@lru_cache(maxsize=1)
def found() -> Findings:
    return lungs_in(chest_volume().volume, StudyContext(convolution_kernel="B70f", slice_thickness_mm=4.0))


def said(findings: Findings, key: str) -> set[Code | str]:
    return {evaluation.value for evaluation in findings.evaluations if evaluation.segment == key}


def measured(findings: Findings, key: str) -> dict[str, float]:
    return {item.label: item.value for item in findings.measurements if item.segment == key}


def mask(findings: Findings, number: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    assert findings.labels is not None
    return np.equal(findings.labels, number)


def cut(chest: ChestVolume, slices: slice = slice(None), columns: slice = slice(None)) -> Volume:
    affine = chest.volume.grid.affine.copy()
    affine[:3, 3] = chest.volume.grid.to_lps([slices.start or 0, 0, columns.start or 0])
    return volume_of(chest.volume.voxels[slices, :, columns], affine)


def test_finds_both_lungs_within_three_percent_of_the_truth() -> None:
    chest = chest_volume()
    ml = chest.volume.grid.voxel_volume_ml
    assert measured(found(), "left_lung")["Volume"] == pytest.approx(chest.left.sum() * ml, rel=0.03)
    assert measured(found(), "right_lung")["Volume"] == pytest.approx(chest.right.sum() * ml, rel=0.03)
    assert dice(mask(found(), 1), chest.left) > 0.98
    assert dice(mask(found(), 2), chest.right) > 0.98


def test_the_mask_holds_neither_trachea_nor_stomach_gas_nor_couch() -> None:
    chest = chest_volume()
    outside = mask(found(), 1) | mask(found(), 2)
    outside &= ~chest.left & ~chest.right
    pure_gas = outside & (chest.volume.voxels < -950)
    assert np.count_nonzero(pure_gas) * chest.volume.grid.voxel_volume_ml < 2


def test_states_density_with_kernel_and_slice_thickness_beside_it() -> None:
    chest = chest_volume()
    numbers = measured(found(), "left_lung")
    inside = chest.volume.voxels[mask(found(), 1)].astype(float)
    assert numbers["Mean attenuation"] == pytest.approx(inside.mean())
    assert numbers["Standard deviation"] == pytest.approx(inside.std())
    assert numbers["%LAA-950"] == pytest.approx(100 * (inside < -950).mean())
    assert {"B70f", "4 mm"} <= said(found(), "left_lung")


def test_says_unknown_where_the_headers_name_no_kernel() -> None:
    assert said(lungs_in(chest_volume().volume), "right_lung") == {"unknown"}


def test_two_runs_give_the_same_labels() -> None:
    assert np.array_equal(mask(found(), 1), mask(lungs_in(chest_volume().volume), 1))


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(3)), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_lungs_are_the_same_however_the_grid_is_stored(order: list[int], reverse: tuple[bool, bool, bool]) -> None:
    volume, steps = chest_volume().volume, tuple(slice(None, None, -1 if flip else 1) for flip in reverse)
    affine = volume.grid.affine.copy()
    for axis in np.flatnonzero(reverse):
        affine[:3, 3] += affine[:3, axis] * (volume.grid.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:, :3] = affine[:, order]
    stored = volume_of(volume.voxels[steps].transpose(order), affine)
    labels = lungs_in(stored).labels
    assert labels is not None
    in_order = labels.transpose(np.argsort(order))[steps]
    assert all(np.array_equal(in_order == number, mask(found(), number)) for number in (1, 2))


def test_right_is_where_x_is_smaller_in_patient_space() -> None:
    grid = chest_volume().volume.grid
    left, right = (grid.to_lps(np.argwhere(mask(found(), number)).mean(axis=0)) for number in (1, 2))
    assert right[0] < -40
    assert left[0] > 40


@pytest.mark.parametrize("slices", [slice(0, 45), slice(30, 72)], ids=["apices cut off", "bases cut off"])
def test_a_lung_that_the_stack_cuts_is_qualified_and_has_no_total_volume(slices: slice) -> None:
    findings = lungs_in(cut(chest_volume(), slices))
    for key in ("left_lung", "right_lung"):
        assert INCOMPLETE in said(findings, key)
        assert VOLUME not in {item.concept for item in findings.measurements}
        assert set(measured(findings, key)) == {
            "Mean attenuation (imaged part)", "Standard deviation (imaged part)", "%LAA-950 (imaged part)",
        }  # fmt: skip


def test_a_complete_lung_is_not_qualified() -> None:
    assert INCOMPLETE not in said(found(), "left_lung") | said(found(), "right_lung")


def test_lungs_that_touch_are_cut_where_they_touch() -> None:
    chest = chest_volume()
    bridge = (np.abs(chest.at.x) < 32) & (np.abs(chest.at.y + 30) < 9) & (np.abs(chest.at.z - 55) < 12)
    volume = chest.changed(lambda voxels: voxels.__setitem__(bridge, -850))
    findings = lungs_in(volume)
    assert dice(mask(findings, 1), chest.left) > 0.97
    assert dice(mask(findings, 2), chest.right) > 0.97
    assert not (mask(findings, 1) & (chest.at.x < -12)).any()
    assert not (mask(findings, 2) & (chest.at.x > 12)).any()


@pytest.mark.parametrize(("gone", "number"), [("left", 1), ("right", 2)])
def test_one_lung_without_air_leaves_its_segment_empty_and_says_so(gone: str, number: int) -> None:
    chest = chest_volume()
    lost = chest.left if number == 1 else chest.right
    findings = lungs_in(chest.changed(lambda voxels: voxels.__setitem__(lost, 30)))
    assert not mask(findings, number).any()
    assert NOT_VISUALIZED in said(findings, f"{gone}_lung")
    assert dice(mask(findings, 3 - number), chest.right if number == 1 else chest.left) > 0.97
    assert measured(findings, f"{gone}_lung") == {}


def test_a_couch_filled_with_foam_of_lung_density_is_not_taken() -> None:
    chest = chest_volume()
    foam = (chest.at.y > 126) & (chest.at.y < 152) & (np.abs(chest.at.x) < 185) & (chest.at.z > -500)
    volume = chest.changed(lambda voxels: voxels.__setitem__(foam, -850))
    assert millilitres(lungs_in(volume), volume) == pytest.approx(
        millilitres(found(), chest.volume), rel=0.01
    )  # fmt: skip


def test_air_cushions_and_tubes_outside_the_body_are_not_taken() -> None:
    chest = chest_volume()
    ring = np.hypot(chest.at.x - 150, chest.at.y + 150) + 0 * chest.at.z

    def paint(voxels: Voxels) -> None:
        voxels[ring < 45] = 100
        voxels[ring < 38] = -850

    volume = chest.changed(paint)
    assert millilitres(lungs_in(volume), volume) == pytest.approx(millilitres(found(), chest.volume), rel=0.01)


def test_a_nodule_inside_the_lung_belongs_to_it() -> None:
    chest = chest_volume()
    nodule = np.broadcast_to(
        np.square(chest.at.x + 85) + np.square(chest.at.y) + np.square(chest.at.z - 40) < 14**2, chest.right.shape
    )
    findings = lungs_in(chest.changed(lambda voxels: voxels.__setitem__(nodule, 40)))
    assert mask(findings, 2)[nodule].all()


def test_emphysema_is_lung() -> None:
    chest = chest_volume()

    def thin_out(voxels: Voxels) -> None:
        voxels[chest.left | chest.right] = np.clip(voxels[chest.left | chest.right] - 90, -1024, None)

    findings = lungs_in(chest.changed(thin_out))
    assert dice(mask(findings, 1), chest.left) > 0.97
    assert measured(findings, "left_lung")["%LAA-950"] > 5


def test_float_voxels_give_the_same_answer() -> None:
    chest = chest_volume()
    volume = volume_of(chest.volume.voxels.astype(np.float32), chest.volume.grid.affine)
    assert np.array_equal(mask(lungs_in(volume), 1), mask(found(), 1))


def paint_head(voxels: Voxels) -> None:
    voxels[:] = -1000
    voxels[:, 30:80, 30:80] = 30


def paint_abdomen(voxels: Voxels) -> None:
    chest = chest_volume()
    voxels[chest.left | chest.right] = 40


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda voxels: voxels.__setitem__(slice(None), -1000), "not Hounsfield units"),
        (lambda voxels: voxels.__iadd__(1100), "not Hounsfield units"),
        (paint_head, "no lung"),
        (paint_abdomen, "no lung"),
    ],
    ids=["air only", "shifted values", "head", "abdomen"],
)
def test_a_volume_without_lungs_is_not_applicable(change: object, reason: str) -> None:
    assert callable(change)
    with pytest.raises(NotApplicable, match=reason):
        lungs_in(chest_volume().changed(change))


def test_values_that_are_not_hounsfield_units_are_not_applicable() -> None:
    chest = chest_volume().volume
    volume = Volume(voxels=chest.voxels, grid=chest.grid, sop_instance_uids=chest.sop_instance_uids, unit="")
    with pytest.raises(NotApplicable, match="Hounsfield"):
        lungs_in(volume)


@pytest.mark.parametrize("columns", [slice(0, 54), slice(54, 108), slice(40, 70)], ids=["right", "left", "middle"])
def test_a_field_of_view_that_cuts_a_lung_is_not_applicable(columns: slice) -> None:
    with pytest.raises(NotApplicable):
        lungs_in(cut(chest_volume(), columns=columns))


def test_a_thin_slab_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="thinner"):
        lungs_in(cut(chest_volume(), slice(40, 46)))


def test_air_across_the_middle_that_cannot_be_divided_is_not_applicable() -> None:
    chest = chest_volume()
    cavity = np.hypot(chest.at.x / 130, chest.at.y / 80) + 0 * chest.at.z < 1
    with pytest.raises(NotApplicable, match="told apart"):
        lungs_in(chest.changed(lambda voxels: voxels.__setitem__(cavity & (np.abs(chest.at.z) < 60), -850)))
