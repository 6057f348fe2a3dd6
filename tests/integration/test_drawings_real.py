"""Real drawings of other makers: what becomes of each, and where its prompt lies in mm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from drawn import in_patient, num, presentation, rectangle, report, scoord, scoord3d
from pointing import Pointed, pointing, seen_from_within, settle
from working import Work

from domain.instance import Reception
from domain.job import Job, JobState
from domain.prompt import ObjectPrompt
from domain.series import Stack
from domain.volume import Grid
from pipeline.rules import DrawingRule
from volume.digest import inspect
from volume.drawings.placing import Slices, prompt_on
from volume.drawings.reading import read_sketch
from volume.geometry import geometry

Pair = tuple[Work, Pointed]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with pointing(tmp_path, destinations=()) as pair:
        yield pair


def receive(work: Work, paths: Sequence[Path]) -> None:
    staged = []
    for path in paths:
        item = work.intake.stage()
        shutil.copyfile(path, item.path)
        staged.append(item)
    work.intake.commit(staged, Reception(transport="file", sender="", address="", received_at=work.clock()))


def fate(work: Work, drawing: Path) -> Job:
    """Return what is said of a drawing."""
    ds = pydicom.dcmread(drawing)
    found = work.store.jobs.find(series_instance_uid=str(ds.SeriesInstanceUID))
    # One of them lies in the series of its image
    return next(job for job in found if job.sop_instance_uids == (ds.SOPInstanceUID,))


def drawn_on(pair: Pair, images: Sequence[Path], drawing: Path) -> tuple[ObjectPrompt, Grid]:
    """Return the first object of the prompt that the engine was given, and the grid it is on."""
    work, engine = pair
    receive(work, [*images, drawing])
    settle(work)
    said = fate(work, drawing)
    assert said.code == "drawing", said.reason
    (job,) = [job for job in work.store.jobs.find() if job.drawing]
    assert job.state is JobState.DONE, job.reason
    (prompt,) = engine.prompts
    headers = tuple(item.header for item in work.store.series.instances_by_uid(job.sop_instance_uids))
    return prompt.objects[0], geometry(Stack(name="", headers=headers)).grid


def below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_contours_without_images_give_the_pixels_within_the_largest(
    pair: Pair, unpacked: Callable[[str], Path]
) -> None:
    images, drawing, contours, largest = contoured(unpacked)
    item, grid = drawn_on(pair, images, drawing)
    (seed,) = item.masks
    assert not item.boxes
    # Angles that the vertices are seen under add up to a whole turn within; another way than the product's
    corners = grid.to_index(largest)
    assert np.abs(corners[:, 0] - seed.slice).max() < 0.01 / grid.spacing_mm[0]
    low, high = np.array([edge(seed.pixels, axis) for axis in (0, 1)]).T
    np.testing.assert_array_equal(seed.pixels, seen_from_within(corners[:, 1:], seed.pixels.shape))
    # The outermost centres lie within half a pixel of the contour
    assert (np.abs(low - corners[:, 1:].min(axis=0)) < 1).all()
    assert (np.abs(high - corners[:, 1:].max(axis=0)) < 1).all()
    area = seed.pixels.sum() * grid.spacing_mm[1] * grid.spacing_mm[2]
    assert area == pytest.approx(max(map(area_mm2, contours)), rel=0.01)
    assert item.label == "GTV-1"


def test_contours_without_images_give_a_box_around_the_largest(
    tmp_path: Path, unpacked: Callable[[str], Path]
) -> None:
    images, drawing, _, largest = contoured(unpacked)
    with pointing(tmp_path, DrawingRule(contours="box")) as pair:
        item, grid = drawn_on(pair, images, drawing)
    corners = grid.to_lps(item.boxes[0].corners)
    assert np.abs(np.sort(corners[:, :2], axis=0) - [largest.min(axis=0)[:2], largest.max(axis=0)[:2]]).max() < 0.01
    # Contours lie on the slices: the snap to the nearest one moves nothing
    assert np.abs(corners[:, 2] - largest[0, 2]).max() < 0.01


def contoured(unpacked: Callable[[str], Path]) -> tuple[list[Path], Path, list[Any], Any]:
    """Return images, their structure set, its contours in mm, and the largest of them."""
    files = below(unpacked("ct/IBSI_PAT2_lungCT_RTSTRUCT"))
    drawing = next(path for path in files if "_RS_" in path.name)
    roi = pydicom.dcmread(drawing).ROIContourSequence[0]
    contours = [np.array(contour.ContourData, float).reshape(-1, 3) for contour in roi.ContourSequence]
    assert len(contours) == 7
    return [path for path in files if path != drawing], drawing, contours, max(contours, key=area_mm2)


def area_mm2(p: Any) -> float:
    return float(abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - np.roll(p[:, 0], -1) * p[:, 1])) / 2)


def edge(pixels: Any, axis: int) -> tuple[int, int]:
    found = np.flatnonzero(pixels.any(axis=1 - axis))
    return int(found[0]), int(found[-1])


@pytest.mark.parametrize(
    ("images", "drawing"),
    [
        ("seg_sr/dcmqi/ct-3slice", "seg_sr/dcmqi/liver.dcm"),
        ("seg_sr/dcmqi/ct-3slice", "seg_sr/liver_nonbyte_aligned.dcm"),
        ("seg_sr/dcmqi/ct-3slice", "ts/liver_deflate.dcm"),
        ("seg_sr/dcmqi/24x38x3_image", "seg_sr/dcmqi/label.seg"),
    ],
)
def test_a_segmentation_seeds_where_it_lies(pair: Pair, shared_data: Path, images: str, drawing: str) -> None:
    item, grid = drawn_on(pair, below(shared_data / images), shared_data / drawing)
    # The deflated one is a copy, and pydicom cannot decode it
    plain = shared_data / drawing.replace("ts/liver_deflate", "seg_sr/dcmqi/liver")
    check_seed(item, grid, pydicom.dcmread(plain), segment=1)
    assert item.label == "Liver"


def check_seed(item: ObjectPrompt, grid: Grid, seg: Any, *, segment: int) -> None:
    """Compare a seed with the frame in which the segment is largest, in mm."""
    frames = {
        index: pixels
        for index, pixels in enumerate(seg.pixel_array)
        if seg.PerFrameFunctionalGroupsSequence[index].SegmentIdentificationSequence[0].ReferencedSegmentNumber
        == segment
    }
    index = max(frames, key=lambda i: frames[i].sum())
    position = np.array(
        seg.PerFrameFunctionalGroupsSequence[index].PlanePositionSequence[0].ImagePositionPatient, float
    )
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    rows, columns = np.nonzero(frames[index])
    truth = position + np.outer(rows * spacing[0], cosines[3:]) + np.outer(columns * spacing[1], cosines[:3])
    (seed,) = item.masks
    where = np.argwhere(seed.pixels)
    found = grid.to_lps(np.column_stack([np.full(len(where), seed.slice), where]))
    assert len(found) == len(truth)
    order = [np.lexsort(np.round(points, 1).T) for points in (found, truth)]
    assert np.abs(found[order[0]] - truth[order[1]]).max() < 0.01


def test_a_tumour_in_pet_seeds_where_it_lies(pair: Pair, shared_data: Path, unpacked: Callable[[str], Path]) -> None:
    drawing = shared_data / "seg_sr" / "PET_tumor_SEG_QIN-HEADNECK-0024_3DSlicer.dcm"
    images = below(unpacked("pet/PET_wholebody_QIN-HEADNECK-0024_299sl"))
    item, grid = drawn_on(pair, images, drawing)
    check_seed(item, grid, pydicom.dcmread(drawing), segment=1)
    assert (item.label, pair[1].prompts[0].objects[1].label) == ("Neoplasm, Primary", "Neoplasm, Secondary")


@pytest.mark.parametrize(
    ("images", "drawing", "said"),
    [
        ("seg_sr/highdicom/ct_source", "seg_image_ct_binary.dcm", "161 slices missing"),
        ("seg_sr/highdicom/ct_source", "seg_image_ct_binary_overlap.dcm", "161 slices missing"),
        ("seg_sr/highdicom/ct_source", "seg_image_ct_true_fractional.dcm", "161 slices missing"),
        ("ts/CT_small.dcm", "seg_image_ct_binary_single_frame.dcm", "There is one slice only"),
        ("ts/CT_small.dcm", "sr_document.dcm", "There is one slice only"),
        ("seg_sr/highdicom/sm_image.dcm", "seg_image_sm_control.dcm", "on a slide of microscopy"),
        ("seg_sr/highdicom/sm_image.dcm", "seg_image_sm_control_labelmap.dcm", "on a slide of microscopy"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused_with_the_cause(
    pair: Pair, shared_data: Path, images: str, drawing: str, said: str
) -> None:
    work, engine = pair
    source, path = shared_data / images, shared_data / "seg_sr" / "highdicom" / drawing
    receive(work, [*(below(source) if source.is_dir() else [source]), path])
    settle(work)
    found = fate(work, path)
    assert (found.state, found.code) == (JobState.NOT_RUN, "drawing-refused")
    assert said in found.reason
    assert not engine.prompts


@pytest.mark.parametrize("drawing", ["dcmqi/seg.dcm", "dcmqi/sr.dcm", "highdicom/seg_image_cr_binary.dcm"])
def test_without_its_images_a_drawing_waits_and_then_says_why(pair: Pair, shared_data: Path, drawing: str) -> None:
    work, _ = pair
    path = shared_data / "seg_sr" / drawing
    receive(work, [path])
    settle(work)
    assert fate(work, path).code == "waiting"
    assert "It waits for them, at most 3600 s." in fate(work, path).reason
    work.settle(quiet_s=3700)
    assert fate(work, path).code == "images-missing"
    assert "It has waited 3600 s" in fate(work, path).reason


@pytest.mark.parametrize("name", ["seg_sr/test-SR.dcm", "seg_sr/reportsi.dcm", "odd/rtstruct.dcm"])
def test_odd_objects_end_in_a_reason(pair: Pair, shared_data: Path, name: str) -> None:
    work, engine = pair
    receive(work, [shared_data / name])
    settle(work)
    for job in work.store.jobs.find():
        assert job.state is JobState.NOT_RUN
        assert job.reason
    assert not engine.prompts


def test_shapes_drawn_on_a_chest_lie_where_they_were_drawn(unpacked: Callable[[str], Path]) -> None:
    """GSPS in both units, SCOORD3D, a long axis and an ellipse on slice 40, each within 0.01 mm."""
    paths = below(unpacked("ct/chest_GE_CMB-CRC_100sl"))
    proven = geometry(Stack(name="", headers=tuple(inspect(path)[0] for path in paths)))
    slices = Slices(headers=proven.headers, grid=proven.grid)
    by_uid = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}
    series = [
        pydicom.dcmread(by_uid[header.sop_instance_uid], stop_before_pixels=True) for header in proven.headers[39:42]
    ]
    image, corners = series[1], rectangle(201.5, 150.25, 260, 190.75)
    truth = in_patient(image, [corners[0], corners[2]])
    shares = np.array(corners) / (image.Columns, image.Rows)
    ends = [(201.5, 150.25), (260, 190.75)]
    oval = np.add([(-30, 0), (30, 0), (0, -20), (0, 20)], (230, 170))
    for ds, expected in (
        (presentation(series, image, "POLYLINE", corners), truth),
        (presentation(series, image, "POLYLINE", shares, units="DISPLAY"), truth),
        (report(series, [scoord3d(image, "POLYGON", in_patient(image, corners))]), truth),
        (report(series, [num(scoord(image, "POLYLINE", ends))]), truth),
        (report(series, [scoord(image, "ELLIPSE", oval)]), in_patient(image, [(200, 150), (260, 190)])),
    ):
        sketch = read_sketch(ds)
        (item,) = prompt_on(sketch, sketch.objects, slices).objects
        found = item.boxes[0].corners if item.boxes else item.long_axes[0].ends
        assert {position[0] for position in found} == {40}
        # The grid is the best fit through all slices: their headers round positions to micrometres
        assert np.abs(np.sort(proven.grid.to_lps(found), axis=0) - np.sort(expected, axis=0)).max() < 0.01
