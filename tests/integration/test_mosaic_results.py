"""Siemens mosaics through the whole pipeline: results lie where those of single slices would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from drawn import rectangle, report, scoord, scoord3d
from factories import save
from mosaics import mosaic, slices_of_mr
from pydicom import dcmread
from pydicom.dataset import Dataset
from working import BODY, MANIFEST, OneEngine, ThresholdEngine, working

from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.codes import MILLIMETRE, Code
from domain.engine import Case
from domain.errors import VerificationFailed
from domain.findings import Detection, Findings, Measurement
from domain.job import Job, JobState, ResultObject
from domain.ports import Result
from gateway.config import load_config
from gateway.inspection import inspected
from gateway.offline import analyse
from gateway.sections import DrawingSection, RouteSection

BRIGHT = 2000
EVERYTHING = Profile(name="everything", objects=("SEG", "SR", "TEXT-SR", "PMAP", "SC", "PDF", "KOS"))
PLAIN = Profile(name="plain", objects=("SEG", "SR"))
OTHERWISE = Profile(
    name="otherwise",
    objects=("SEG", "SR"),
    options=Options(segmentation="labelmap", report="comprehensive", regionless="statement"),
)
OBLIQUE = [0.98, 0.17, 0.1, -0.19898, 0.94, 0.27]


class BrightEngine(ThresholdEngine):
    """Finds what is bright, a box around it on its largest slice, and a line along its rows there."""

    def run(self, case: Case) -> Findings:
        self.runs += 1
        volume = case.the_volume()
        labels = (volume.voxels > BRIGHT).astype(np.uint8)
        k = int(labels.sum(axis=(1, 2)).argmax())
        rows, columns = np.nonzero(labels[k])
        row = int(np.median(rows))
        ends = np.flatnonzero(labels[k, row])[[0, -1]]
        line = Measurement(
            segment="body",
            concept=Code("410668003", "SCT", "Length"),
            value=float(np.ptp(ends) * volume.grid.spacing_mm[2]),
            unit=MILLIMETRE,
            label="Length",
            points=tuple((float(k), float(row), float(column)) for column in ends),
        )
        box = Detection(
            key="box", label="Box", category=BODY.category, type=BODY.type, image=k, probability=0.75,
            box=(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)),
        )  # fmt: skip
        chances = np.where(labels > 0, 0.75, 0.25).astype(np.float32)
        return Findings(
            labels=labels, segments=(BODY,), measurements=(line,), detections=(box,), probabilities=(chances,)
        )


def slices(seed: int = 1) -> list[Dataset]:
    """Return slices of noise with a bright ball that touches the right border of its images."""
    voxels = np.random.default_rng(seed).integers(1, 400, (11, 24, 20))
    k, j, i = np.indices(voxels.shape)
    voxels[((k - 6) * 2.0) ** 2 + (j - 9) ** 2 + (i - 13) ** 2 <= 36.5] += 3000
    row = np.array(OBLIQUE[:3]) / np.linalg.norm(OBLIQUE[:3])
    column = np.array(OBLIQUE[3:]) - row * (row @ OBLIQUE[3:])
    return slices_of_mr(voxels.astype(np.int16), spacing_mm=3.6, orientation=[*row, *column / np.linalg.norm(column)])


class Keeping(Writer):
    """Keeps what was verified."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(default=profile)
        self.seen: list[tuple[Result, Sequence[ResultObject]]] = []

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        return super().write(replace(result, destinations=()), folder)

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        result = replace(result, destinations=())
        super().verify(result, objects)
        self.seen.append((result, objects))


def analysed(
    folder: Path, received: Sequence[Dataset], profile: Profile = PLAIN
) -> tuple[list[Job], list[dict[str, Path]], Keeping]:
    """Return the jobs on a series, what was written for each, by kind, and the writer; sources are in ``source``."""
    writer = Keeping(profile)
    source = folder / "source"
    source.mkdir(parents=True)
    with working(folder / "store", engines=OneEngine(only=BrightEngine()), writer=writer) as work:
        work.receive(received)
        work.settle()
        jobs = sorted(work.store.jobs.find(), key=lambda job: job.stack)
        for instance in work.store.series.instances(str(received[0].SeriesInstanceUID)):
            shutil.copy(instance.path, source)
        found = [{item.kind: item.path for item in work.store.jobs.objects(job.job_id)} for job in jobs]
        for job in jobs:
            assert job.state is JobState.DONE, job.reason
        return jobs, found, writer


@pytest.mark.parametrize("descending", [False, True])
def test_a_segmentation_lies_where_that_of_the_single_slices_does(tmp_path: Path, descending: bool) -> None:
    single = slices()
    whole = mosaic(single[::-1] if descending else single)
    _, (of_mosaic,), _ = analysed(tmp_path / "mosaic", [whole])
    _, (of_slices,), _ = analysed(tmp_path / "slices", single)
    ours, theirs = (hd.seg.segread(found["SEG"]) for found in (of_mosaic, of_slices))
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)
    for one, other in zip(
        ours.PerFrameFunctionalGroupsSequence, theirs.PerFrameFunctionalGroupsSequence, strict=True
    ):
        places = [group.PlanePositionSequence[0].ImagePositionPatient for group in (one, other)]
        assert np.abs(np.subtract(*places)).max() < 1e-3
        (reference,) = one.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == whole.SOPInstanceUID
        assert reference.SpatialLocationsPreserved == "NO"
        assert "ReferencedFrameNumber" not in reference
    assert ours.FrameOfReferenceUID == whole.FrameOfReferenceUID
    assert np.abs(ours.get_volume().affine - theirs.get_volume().affine).max() < 1e-3


@pytest.mark.parametrize("profile", [PLAIN, OTHERWISE], ids=["plain", "otherwise"])
def test_what_a_report_draws_on_a_mosaic_lies_on_the_tile(tmp_path: Path, profile: Profile) -> None:
    whole = mosaic(slices())
    _, (found,), _ = analysed(tmp_path, [whole], profile)
    report = next(path for kind, path in found.items() if kind.startswith("SR"))
    drawn = [item for item in walk(dcmread(report)) if item.ValueType == "SCOORD"]
    assert len(drawn) == 2
    for item in drawn:
        (image,) = item.ContentSequence
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == whole.SOPInstanceUID
        points = np.reshape(item.GraphicData, (-1, 2))
        inside = points if len(points) == 2 else points.mean(axis=0)[None]
        columns, rows = np.floor(inside).astype(int).T
        assert (whole.pixel_array[rows, columns] > BRIGHT).all()
        assert (np.ptp(points, axis=0) <= (20, 24)).all()


def test_independent_judges_find_nothing_wrong(tmp_path: Path, check_objects: Path) -> None:
    _, (found,), _ = analysed(tmp_path, [mosaic(slices())], EVERYTHING)
    judged = subprocess.run(
        [sys.executable, check_objects, found["SR"].parent, tmp_path / "source"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout
    assert f"0 failed, {len(list(found['SR'].parent.iterdir()))} passed" in judged.stdout


def test_each_mosaic_of_a_series_has_a_result_of_its_own(tmp_path: Path) -> None:
    first = mosaic(slices(1), number=1)
    second = mosaic(slices(2), number=2)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(second, keyword, getattr(first, keyword))
    jobs, found, _ = analysed(tmp_path, [first, second])
    assert [job.stack for job in jobs] == ["axial, acquisition 1", "axial, acquisition 2"]
    for whole, objects in zip((first, second), found, strict=True):
        seg = dcmread(objects["SEG"])
        (series,) = seg.ReferencedSeriesSequence
        assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [whole.SOPInstanceUID]


def test_run_and_inspect_take_a_mosaic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([mosaic(slices())], tmp_path / "in")
    engines = OneEngine(only=BrightEngine())
    config = load_config(None, environ={}).model_copy(
        update={"routes": (RouteSection(name="mr", engine="threshold"),)}
    )
    monkeypatch.setattr("gateway.wiring.engine_registry", lambda config: engines)
    with inspected([tmp_path / "in"], config, lambda what, share: None) as found:
        (report,) = found.stacks
        assert (report.kind, report.verdict) == ("MR, MR Image, tiles of a mosaic", "taken by mr")
        assert report.geometry.startswith("20 x 24 x 11, 1.8 x 1.8 x 3.6 mm, axial tilted")
    analysis = analyse([tmp_path / "in"], tmp_path / "out", config=config)
    (done,) = analysis.series
    assert done.state is JobState.DONE, done.reason
    assert sorted(path.name for path in done.objects) == ["seg.dcm", "sr.dcm"]


def test_a_drawing_in_the_patient_prompts_and_one_in_pixels_of_the_mosaic_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = slices()
    whole = mosaic(single)
    corner, row = (
        np.array(single[4].ImagePositionPatient, float),
        np.array(single[4].ImageOrientationPatient[:3], float),
    )
    column = np.array(single[4].ImageOrientationPatient[3:], float)
    box = [corner + 1.8 * (x * row + y * column) for x, y in rectangle(5, 4, 15, 14)]
    in_patient = report([whole], [scoord3d(whole, "POLYGON", box)])
    in_pixels = report([whole], [scoord(whole, "POLYLINE", rectangle(25, 28, 35, 38))])
    save([whole, in_patient, in_pixels], tmp_path)
    engines = OneEngine(only=BrightEngine(), manifest_now=replace(MANIFEST, takes_prompts=True))
    monkeypatch.setattr("gateway.wiring.engine_registry", lambda config: engines)
    route = RouteSection(name="mr", engine="threshold", prompts_from_dicom=DrawingSection())
    config = load_config(None, environ={}).model_copy(update={"routes": (route,)})
    with inspected([tmp_path], config, lambda what, share: None) as found:
        _, prompts, refused = found.stacks
    assert prompts.verdict == "prompts mr"
    assert refused.verdict == "drawing-refused"
    assert "drawn on the pixels of a mosaic" in refused.reason


def test_a_result_on_the_wrong_tile_is_not_sent(tmp_path: Path) -> None:
    _, _, writer = analysed(tmp_path, [mosaic(slices())], EVERYTHING)
    ((result, objects),) = writer.seen
    for number, changed in enumerate(wrong(result)):
        with pytest.raises(VerificationFailed):
            Writer(default=EVERYTHING).verify(changed, objects)
        again = Writer(default=EVERYTHING).write(changed, tmp_path / str(number))
        with pytest.raises(VerificationFailed):
            Writer(default=EVERYTHING).verify(result, again)


def wrong(result: Result) -> Iterator[Result]:
    """Yield results of which tiles or places are others."""
    first, *rest = result.tiles
    yield replace(result, tiles=(*rest, first))
    moved: npt.NDArray[np.float64] = np.array(result.patient_grid.affine)
    moved[:3, 3] += moved[:3, 0]
    yield replace(result, grid=replace(result.patient_grid, affine=moved))


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from walk(child)
