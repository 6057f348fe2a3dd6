"""Results on the regular grid of tilted and unevenly spaced series, before programs that others wrote."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK
from factories import save
from irregular import Phantom, by_gaps, evenly, phantom
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from resampled import resampled_result
from working import working

from dicom_out.profile import BUILT_IN, Choice, Options, Profile
from dicom_out.writer import Writer
from domain.job import JobState, ResultObject
from domain.ports import Analysed, Result
from domain.series import Resample
from domain.volume import Grid
from pipeline.rules import Route

BOTH = Route(name="both", engine="threshold", resample=tuple(Resample))
STEPPED = by_gaps([1.5] * 10 + [4.0] * 3 + [2.5] * 6)
SIZE = (64, 64)
"""Frames of whole bytes, as OHIF's reader wants them; a tilt adds rows."""
PHANTOMS: dict[str, Callable[[], Phantom]] = {
    "tilted": lambda: phantom(evenly(24, 2.0), tilt_deg=16.5, size=SIZE),
    "uneven": lambda: phantom(STEPPED, size=SIZE),
    "both": lambda: phantom(STEPPED, tilt_deg=-11.0, size=SIZE),
}
ABOUT_THE_SOURCE = re.compile(
    r"frame position\(s\) not on a source slice|origin at non-integer source index|extent reaches outside the source"
    r"|slice spacing \S+ vs source|frame position differs from the position of its referenced source image"
)


@pytest.fixture
def judge(check_objects: Path, peer: Callable[[str], str]) -> Callable[[Path, Path], tuple[int, str]]:
    """Return a function that asks the judge, and OHIF's reader where ``VOXGATE_JS`` is a folder with it."""
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump", "segimage2itkimage", "tid1500reader"):
        peer(tool)
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))
    scripts = ["--js", os.environ["VOXGATE_JS"]] if "VOXGATE_JS" in os.environ else []

    def run(results: Path, source: Path) -> tuple[int, str]:
        # OHIF's reader takes every image for one with a place
        is_placed = all("ImagePositionPatient" in dcmread(path, stop_before_pixels=True) for path in source.iterdir())
        also = scripts if is_placed else []
        command = [sys.executable, str(check_objects), str(results), str(source), *also]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def _analysed(result: Result) -> Analysed:
    assert result.analysed is not None
    return result.analysed


def _written(result: Result, folder: Path, objects: tuple[Choice, ...], **options: object) -> Sequence[ResultObject]:
    profile = Profile(name="test", objects=objects, options=Options(grid="regular", **options))  # type: ignore[arg-type]
    writer = Writer(default=profile)
    written = writer.write(result, folder)
    writer.verify(result, written)
    return written


def _straight_twin(series: Sequence[Dataset], grid: Grid, folder: Path) -> Path:
    """Write the series as it would be without tilt and at equal steps: what the judge takes for the source's grid.

    An instance whose plane is that of a regular slice stands there; others keep their identity, without a place.
    """
    twin = [copy.deepcopy(ds) for ds in series]
    left = list(twin)
    for k in range(grid.shape[0]):
        corner = grid.to_lps((k, 0, 0))
        here = [ds for ds in left if abs((np.array(ds.ImagePositionPatient, float) - corner) @ grid.normal) < 0.01]
        if here:
            left.remove(here[0])
        else:
            here = [copy.deepcopy(series[0])]
            here[0].SOPInstanceUID = here[0].file_meta.MediaStorageSOPInstanceUID = generate_uid()
            twin += here
        here[0].ImagePositionPatient = [f"{value:.9g}" for value in corner]
        _, here[0].Rows, here[0].Columns = grid.shape
    for ds in left:
        del ds.ImagePositionPatient
    save(twin, folder)
    return folder


@pytest.mark.parametrize("options", [{}, {"segmentation": "labelmap"}, {"segmentation": "fractional"}], ids=str)
@pytest.mark.parametrize("name", PHANTOMS)
def test_judges_pass_the_regular_grid(
    tmp_path: Path, judge: Callable[[Path, Path], tuple[int, str]], name: str, options: dict[str, object]
) -> None:
    found = PHANTOMS[name]()
    fractional = options.get("segmentation") == "fractional"
    result = resampled_result(found, tmp_path / "source", probabilities=fractional)
    # Neither dicom3tools nor DCMTK 3.6.7 knows that a report may refer to a segment of a label map
    objects: tuple[Choice, ...] = ("SEG",) if options.get("segmentation") == "labelmap" else ("SEG", "SR")
    _written(result, tmp_path / "results", objects, **options)
    if not options:  # beside the tilted series itself, only that its slices are others is complained of
        _, said = judge(tmp_path / "results", tmp_path / "source")
        complaints = [part for line in said.splitlines() if line.startswith("FAIL seg") for part in line.split(" ; ")]
        assert all(ABOUT_THE_SOURCE.search(part) for part in complaints), said
    twin = _straight_twin(found.series, _analysed(result).grid, tmp_path / "twin")
    code, said = judge(tmp_path / "results", twin)
    assert code == 0, said
    if not fractional:
        voxels = sum(int(mask.sum()) for mask in _analysed(result).findings.masks)
        assert f"{voxels} vox" in said


@pytest.mark.parametrize("segmentation", ["binary", "labelmap", "fractional"])
@pytest.mark.parametrize("name", PHANTOMS)
def test_dcmqi_makes_the_volume_of_the_engine(
    tmp_path: Path, peer: Callable[[str], str], name: str, segmentation: str
) -> None:
    result = resampled_result(PHANTOMS[name](), tmp_path / "source", probabilities=segmentation == "fractional")
    (seg,) = _written(result, tmp_path / "results", ("SEG",), segmentation=segmentation)
    grid, findings = _analysed(result).grid, _analysed(result).findings
    images = _read_by_dcmqi(peer("segimage2itkimage"), seg.path, tmp_path / "read")
    expected = [values > 0 for values in findings.probabilities] or list(findings.masks)
    assert sum(int((values > 0).sum()) for _, values in images) >= sum(int(mask.sum()) for mask in findings.masks)
    for image, values in images:
        index = np.argwhere(values)
        places = [
            image.TransformIndexToPhysicalPoint([int(i) for i in at[::-1]])  # type: ignore[no-untyped-call]
            for at in index
        ]
        voxels = grid.to_index(np.array(places))
        assert np.abs(voxels - voxels.round()).max() < 1e-3
        voxels = voxels.round().astype(int)
        assert any(mask[tuple(voxels.T)].all() for mask in [*expected, np.any(expected, axis=0)])


def _read_by_dcmqi(
    reader: str, path: Path, folder: Path
) -> list[tuple[SimpleITK.Image, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]]:
    folder.mkdir(parents=True)
    command = [reader, "--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    images = [SimpleITK.ReadImage(str(file)) for file in sorted(folder.glob("*.nrrd"))]
    return [(image, SimpleITK.GetArrayFromImage(image).astype(float)) for image in images]


def test_parametric_maps_on_the_regular_grid_are_volumes_for_dcmqi(
    tmp_path: Path, judge: Callable[[Path, Path], tuple[int, str]], peer: Callable[[str], str]
) -> None:
    found = PHANTOMS["both"]()
    result = resampled_result(found, tmp_path / "source", probabilities=True)
    maps = _written(result, tmp_path / "results", ("PMAP",))
    twin = _straight_twin(found.series, _analysed(result).grid, tmp_path / "twin")
    code, said = judge(tmp_path / "results", twin)
    assert code == 0, said
    reader = str(Path(peer("segimage2itkimage")).with_name("paramap2itkimage"))
    for item, expected in zip(maps, _analysed(result).findings.probabilities, strict=True):
        ((_, values),) = _read_by_dcmqi(reader, item.path, tmp_path / item.path.stem)
        assert values.sum() == pytest.approx(float(expected.sum(dtype=float)), rel=1e-5)


def test_a_real_tilted_head_phantom_is_a_volume_for_slicer_and_shown_on_its_slices_elsewhere(
    tmp_path: Path,
    unpacked: Callable[[str], Path],
    peer: Callable[[str], str],
    judge: Callable[[Path, Path], tuple[int, str]],
) -> None:
    folder = unpacked("ct/headphantom_Philips_gantrytilt+16.5_58sl")
    series = [dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "DIRFILE"]
    writer = Writer(profiles={"pacs": BUILT_IN["slicer"]})
    with working(tmp_path / "store", routes=[BOTH], writer=writer) as work:
        work.receive(series)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE, job.reason
        objects = {item.variant: item.path for item in work.store.jobs.objects(job.job_id)}
        assert set(objects) == {"SEG;grid=regular", "SR-COMPREHENSIVE;to=SEG;grid=regular"}
        results = tmp_path / "results"
        results.mkdir()
        for path in objects.values():
            shutil.copy(path, results)
    seg = highdicom.seg.segread(next(results.glob("seg*")))
    volume = seg.get_volume(combine_segments=True)
    steps = volume.affine[:3, :3]
    assert abs(steps[:, 0] @ steps[:, 1]) < 1e-6  # no shear is left
    assert np.linalg.norm(steps, axis=0) == pytest.approx([2.396, 0.40625, 0.40625], abs=0.01)
    ((_, values),) = _read_by_dcmqi(peer("segimage2itkimage"), next(results.glob("seg*")), tmp_path / "read")
    assert int(np.count_nonzero(values)) == int(np.count_nonzero(volume.array)) > 1_000_000
    # What is on the regular grid is what the slices show there: HU above the threshold, at the same place in mm
    positions = {str(ds.SOPInstanceUID): ds for ds in series if "ImagePositionPatient" in ds}
    wrong = counted = 0
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        (named,) = group.DerivationImageSequence[0].SourceImageSequence
        source = positions[str(named.ReferencedSOPInstanceUID)]
        down = np.array(source.ImageOrientationPatient[3:], float)
        offset = np.array(source.ImagePositionPatient, float) - np.array(
            group.PlanePositionSequence[0].ImagePositionPatient, float
        )
        row = round(float(offset @ down) / float(source.PixelSpacing[0]))
        hounsfield = source.pixel_array * source.RescaleSlope + source.RescaleIntercept
        shown = mask[row : row + source.Rows].astype(bool)
        wrong, counted = wrong + int((shown != (hounsfield > -500)).sum()), counted + shown.size
    assert wrong < 0.01 * counted
    headers = [ds for ds in series if "ImagePositionPatient" in ds]
    for ds in headers:  # the localizer that it names is not in the folder
        del ds.ReferencedImageSequence, ds.ReferencedPerformedProcedureStepSequence
    code, said = judge(results, _straight_twin(headers, _grid_of(seg), tmp_path / "twin"))
    assert code == 0, said


def _grid_of(seg: highdicom.seg.Segmentation) -> Grid:
    volume = seg.get_volume(combine_segments=True)
    affine = volume.affine.copy()
    first = affine @ (volume.spatial_shape[0] - 1, 0, 0, 1)
    normal = np.cross(affine[:3, 2], affine[:3, 1])
    if affine[:3, 0] @ normal < 0:
        affine[:3, 3], affine[:3, 0] = first[:3], -affine[:3, 0]
    shape = (int(volume.spatial_shape[0]), int(seg.Rows), int(seg.Columns))
    return Grid(shape=shape, affine=affine, frame_of_reference_uid=str(seg.FrameOfReferenceUID))
