"""Segmentations and parametric maps of resampled results, on the source's slices and on the regular grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pytest
from irregular import SPACING_MM, Phantom, by_gaps, evenly, phantom
from pydicom import dcmread
from pydicom.dataset import Dataset
from resampled import resampled_result

from dicom_out.profile import BUILT_IN, Choice, Options, Profile
from dicom_out.writer import Writer
from domain.errors import VerificationFailed
from domain.job import ResultObject
from domain.ports import Analysed, Result
from domain.volume import Grid

STEPPED = by_gaps([1.5] * 10 + [4.0] * 3 + [2.5] * 6)
PHANTOMS: dict[str, Callable[[], Phantom]] = {
    "tilted": lambda: phantom(evenly(24, 2.0), tilt_deg=16.5),
    "uneven": lambda: phantom(STEPPED),
    "both": lambda: phantom(STEPPED, tilt_deg=-11.0),
    "coronal": lambda: phantom(STEPPED, orientation=(1, 0, 0, 0, 0, -1)),
}
IRREGULAR = pytest.mark.parametrize("name", PHANTOMS)
TYPES = pytest.mark.parametrize("kind", ["binary", "labelmap", "fractional"])


def writer(objects: tuple[Choice, ...] = ("SEG",), **options: object) -> Writer:
    return Writer(default=Profile(name="test", objects=objects, options=Options(**options)))  # type: ignore[arg-type]


def write(
    result: Result, folder: Path, objects: tuple[Choice, ...] = ("SEG",), **options: object
) -> list[ResultObject]:
    """Write what such a profile asks for, verify it, and return it."""
    made = writer(objects, **options)
    written = made.write(result, folder)
    made.verify(result, written)
    return list(written)


def analysed(result: Result) -> Analysed:
    assert result.analysed is not None
    return result.analysed


@TYPES
@IRREGULAR
def test_on_the_regular_grid_it_is_a_volume_with_the_very_voxels_of_the_engine(
    tmp_path: Path, name: str, kind: str
) -> None:
    result = resampled_result(PHANTOMS[name](), tmp_path / "source", probabilities=kind == "fractional")
    (written,) = write(result, tmp_path, grid="regular", segmentation=kind)
    seg = highdicom.seg.segread(written.path)
    assert seg.SegmentationType == kind.upper()
    assert seg.FrameOfReferenceUID == analysed(result).grid.frame_of_reference_uid
    found = analysed(result).findings
    inside = on_grid(seg.get_volume(combine_segments=False), analysed(result).grid)
    for number, mask in enumerate(found.probabilities if kind == "fractional" else found.masks):
        held = mask.astype(float)
        expected = np.floor(held * 255 + 0.5) / 255 if kind == "fractional" else held
        np.testing.assert_allclose(inside[..., number], expected, atol=1e-6)


def on_grid(volume: highdicom.Volume, grid: Grid) -> npt.NDArray[np.float64]:
    """Return what a reader takes for a volume on the whole of a grid; its slices may come in the other direction."""
    affine: npt.NDArray[np.float64] = np.asarray(volume.affine, float)
    corners = np.arange(volume.spatial_shape[0])[:, None] * affine[:3, 0] + affine[:3, 3]
    np.testing.assert_allclose(affine[:3, 1:3], grid.affine[:3, 1:3], atol=1e-9)
    index = grid.to_index(corners)
    np.testing.assert_allclose(index, index.round(), atol=1e-6)
    assert not index[:, 1:].round().any()
    inside = np.zeros((*grid.shape, *volume.array.shape[3:]), float)
    inside[index[:, 0].round().astype(int)] = volume.array
    return inside


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("grid", ["source", "regular"])
@pytest.mark.parametrize("name", ["tilted", "uneven"])
def test_the_ball_has_place_and_volume_on_both_grids(tmp_path: Path, name: str, grid: str, kind: str) -> None:
    found = PHANTOMS[name]()
    result = resampled_result(found, tmp_path / "source")
    (written,) = write(result, tmp_path, grid=grid, segmentation=kind)
    seg = dcmread(written.path)
    depths = sorted(float(ds.ImagePositionPatient[2]) for ds in found.series)
    reach = dict(zip(depths, np.gradient(depths), strict=True))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    total, weight = np.zeros(3), 0.0
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        if kind == "binary" and group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != 1:
            continue
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(mask == 1)
        pixels = position + rows[:, None] * [0, SPACING_MM[0], 0] + columns[:, None] * [SPACING_MM[1], 0, 0]
        thick = measures.get("SpacingBetweenSlices") or reach[float(position[2])]
        total, weight = total + thick * pixels.sum(axis=0), weight + thick * len(pixels)
    assert np.linalg.norm(total / weight - found.centre_mm) < 0.5
    assert weight * SPACING_MM[0] * SPACING_MM[1] / 1000 == pytest.approx(found.volume_ml, rel=0.02)


@IRREGULAR
def test_each_frame_names_the_slices_that_it_was_computed_from(tmp_path: Path, name: str) -> None:
    found = PHANTOMS[name]()
    result = resampled_result(found, tmp_path / "source")
    (written,) = write(result, tmp_path, grid="regular", segmentation="labelmap")
    seg = dcmread(written.path)
    (series,) = seg.ReferencedSeriesSequence
    listed = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert sorted(listed) == sorted(str(ds.SOPInstanceUID) for ds in found.series)
    normal = analysed(result).grid.normal
    places = {str(ds.SOPInstanceUID): np.array(ds.ImagePositionPatient, float) for ds in found.series}
    depths = np.sort([place @ normal for place in places.values()])
    for group in seg.PerFrameFunctionalGroupsSequence:
        (derived,) = group.DerivationImageSequence
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        named = [places[str(item.ReferencedSOPInstanceUID)] for item in derived.SourceImageSequence]
        away = [abs(float((place - position) @ normal)) for place in named]
        if len(named) == 1:
            assert away[0] < 1e-3
        else:
            assert away == sorted(away)
            assert len(named) == 2
            below = int(np.searchsorted(depths, position @ normal))
            np.testing.assert_allclose(sorted(place @ normal for place in named), depths[below - 1 : below + 1])
        copied = len(named) == 1 and float(np.linalg.norm(named[0] - position)) < 1e-6 and "tilt" not in name
        said = {item.SpatialLocationsPreserved for item in derived.SourceImageSequence}
        assert said == {"YES" if copied and name != "both" else "NO"}
        steps = [item.CodeValue for item in derived.DerivationCodeSequence]
        assert steps == (["113076"] if said == {"YES"} else ["113085", "113076"])


def test_without_resampling_the_choice_changes_nothing(tmp_path: Path) -> None:
    result = resampled_result(phantom(evenly(24, 2.0)), tmp_path / "source", probabilities=True)
    assert result.analysed is None
    objects: tuple[Choice, ...] = ("SEG", "SR", "PMAP")
    one, other = (write(result, tmp_path / grid, objects, grid=grid) for grid in ("source", "regular"))
    assert [item.variant for item in one] == ["SEG", "SR", "PMAP", "PMAP"]
    for left, right in zip(one, other, strict=True):
        assert (left.variant, left.sop_instance_uid) == (right.variant, right.sop_instance_uid)
        assert left.path.read_bytes() == right.path.read_bytes()


def test_each_destination_gets_its_grid_and_the_report_of_its_segmentation(tmp_path: Path) -> None:
    result = resampled_result(PHANTOMS["tilted"](), tmp_path / "source")
    result = replace(result, destinations=("viewer", "slicer"))
    made = Writer(profiles={"viewer": BUILT_IN["ohif"], "slicer": BUILT_IN["slicer"]})
    written = made.write(result, tmp_path / "results")
    made.verify(result, written)
    mine = {name: [item for item in written if name in (item.destinations or ())] for name in ("viewer", "slicer")}
    assert [item.variant for item in mine["slicer"]] == ["SEG;grid=regular", "SR-COMPREHENSIVE;to=SEG;grid=regular"]
    assert [item.kind for item in mine["viewer"]] == ["SEG", "SR"]
    assert len({item.sop_instance_uid for item in written}) == len(written)
    images = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in result.source_paths}
    for seg, sr in mine.values():
        content = list(_walk(dcmread(sr.path)))
        segments = {
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in content
            if item.ValueType == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
        }
        assert segments == {seg.sop_instance_uid}
        drawn = [item.ContentSequence[0] for item in content if item.ValueType == "SCOORD"]
        assert drawn
        assert {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in drawn} <= images


def test_what_stands_in_for_a_refused_label_map_lies_on_the_same_grid(tmp_path: Path) -> None:
    result = replace(resampled_result(PHANTOMS["uneven"](), tmp_path / "source"), destinations=("pacs",))
    profile = Profile(name="own", options=Options(segmentation="labelmap", grid="regular"))
    made = Writer(profiles={"pacs": profile})
    written = {item.kind: item for item in made.write(result, tmp_path / "results") if item.kind.startswith("SEG")}
    made.verify(result, made.write(result, tmp_path / "again"))
    assert written["SEG-LABELMAP"].fallback == written["SEG"].variant == "SEG;grid=regular"
    grids = [dcmread(item.path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence for item in written.values()]
    assert grids[0] == grids[1]


def test_probabilities_are_mapped_on_the_regular_grid_too(tmp_path: Path) -> None:
    result = resampled_result(PHANTOMS["both"](), tmp_path / "source", probabilities=True)
    maps = write(result, tmp_path, ("PMAP",), grid="regular")
    assert [item.variant for item in maps] == ["PMAP;grid=regular"] * 2
    for item, expected in zip(maps, analysed(result).findings.probabilities, strict=True):
        volume = highdicom.imread(item.path).get_volume(dtype=np.float64)
        np.testing.assert_allclose(on_grid(volume, analysed(result).grid), expected)


def test_options_of_a_segmentation_hold_on_the_regular_grid(tmp_path: Path) -> None:
    result = resampled_result(PHANTOMS["uneven"](), tmp_path / "source")
    slices = analysed(result).grid.shape[0]
    assert slices > result.grid.shape[0]
    (whole,) = write(result, tmp_path / "whole", grid="regular", empty_frames=True)
    assert dcmread(whole.path).NumberOfFrames == 2 * slices
    split = write(result, tmp_path / "split", ("SEG", "SR"), grid="regular", max_frames=10)
    assert [item.kind for item in split] == ["SEG", "SEG", "SR"]


def _moved(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(place.ImagePositionPatient[0]) + 0.1, *place.ImagePositionPatient[1:]]


def _on_the_source(ds: Dataset) -> None:
    """Tilted slices end higher or lower than the grid; here each frame claims another slice's place."""
    first, second = (group.PlanePositionSequence for group in ds.PerFrameFunctionalGroupsSequence[:2])
    ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = second
    ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence = first


def _other_image(ds: Dataset) -> None:
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[0].DerivationImageSequence = groups[3].DerivationImageSequence


def _no_image(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence


def _preserved(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        for item in group.DerivationImageSequence[0].SourceImageSequence:
            item.SpatialLocationsPreserved = "YES"


def _unlisted(ds: Dataset) -> None:
    del ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def _pixel(ds: Dataset) -> None:
    ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]


def _spacing(ds: Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "2.02"


def _frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_moved, "does not have the position|does not lie on"),
        (_on_the_source, "names another source image"),
        (_other_image, "names another source image"),
        (_no_image, "names another source image"),
        (_preserved, "names another source image"),
        (_unlisted, "ReferencedSeriesSequence"),
        (_pixel, r"1 voxel\(s\) on 1 slice"),
        (_spacing, "SpacingBetweenSlices"),
        (_frame_of_reference, "FrameOfReferenceUID"),
    ],
)
@pytest.mark.parametrize("name", ["tilted", "both"])
def test_a_fault_on_the_regular_grid_is_found(
    tmp_path: Path, name: str, change: Callable[[Dataset], None], match: str
) -> None:
    result = resampled_result(PHANTOMS[name](), tmp_path / "source")
    (written,) = write(result, tmp_path, grid="regular")
    ds = dcmread(written.path)
    for element in ds.iterall():
        element.is_undefined_length = False
    change(ds)
    ds.save_as(written.path)
    with pytest.raises(VerificationFailed, match=match):
        writer(grid="regular").verify(result, [written])


def _wrong_grids(grid: Grid) -> Iterator[tuple[Grid, str]]:
    """Yield grids that cannot be what the slices were resampled to."""

    def moved(by: list[float]) -> Grid:
        affine = grid.affine.copy()
        affine[:3, 3] += by
        return replace(grid, affine=affine)

    sheared, wider = grid.affine.copy(), grid.affine.copy()
    sheared[1, 0] += 0.05
    wider[:3, 2] *= 1.01
    yield moved([0.0, 40.0, 0.0]), "does not cover"
    yield moved([0.0, 0.0, 5.0]), "does not cover"
    yield replace(grid, affine=sheared), "straight above one another"
    yield replace(grid, affine=wider), "rows and columns"


def test_a_regular_grid_that_is_not_the_slices_own_is_not_sent(tmp_path: Path) -> None:
    result = resampled_result(PHANTOMS["tilted"](), tmp_path / "source")
    for number, (grid, match) in enumerate(_wrong_grids(analysed(result).grid)):
        wrong = replace(result, analysed=replace(analysed(result), grid=grid))
        made = writer(grid="regular")
        written = made.write(wrong, tmp_path / str(number))
        with pytest.raises(VerificationFailed, match=match):
            made.verify(wrong, written)


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _walk(child)
