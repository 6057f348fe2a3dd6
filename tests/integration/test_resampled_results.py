"""Tilted and unevenly spaced series through the whole pipeline: refused by default, right where a route allows it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from irregular import Phantom, by_gaps, evenly, phantom
from pydicom import dcmread
from pydicom.dataset import Dataset
from working import Work, working

from dicom_out.writer import Writer
from domain.errors import VerificationFailed
from domain.job import Job, JobState, ResultObject
from domain.ports import Result
from domain.series import Resample
from pipeline.rules import Route

STEPPED = by_gaps([1.5] * 10 + [4.0] * 3 + [2.5] * 6)
PLAIN = Route(name="plain", engine="threshold")
BOTH = Route(name="both", engine="threshold", resample=tuple(Resample))


def tilted() -> Phantom:
    return phantom(evenly(24, 2.0), tilt_deg=16.5)


@pytest.mark.parametrize(("found", "code"), [(tilted(), "gantry-tilt"), (phantom(STEPPED), "variable-spacing")])
def test_by_default_it_is_refused_and_the_setting_is_named(tmp_path: Path, found: Phantom, code: str) -> None:
    with working(tmp_path, routes=[PLAIN]) as work:
        (job,) = _jobs(work, found)
        assert (job.state, job.code) == (JobState.NOT_RUN, code)
        assert f"resample = \"{code.replace('-', '_')}\" (here: 'plain')" in job.reason


IRREGULAR = pytest.mark.parametrize(
    "found",
    [tilted(), phantom(STEPPED), phantom(STEPPED, tilt_deg=-11.0)],
    ids=["tilted", "uneven", "both"],
)


@IRREGULAR
def test_the_result_lies_on_the_source_slices_where_the_ball_is(tmp_path: Path, found: Phantom) -> None:
    objects, _ = _analysed(tmp_path, found)
    seg = hd.seg.segread(objects["SEG"])
    positions = {str(ds.SOPInstanceUID): np.array(ds.ImagePositionPatient, float) for ds in found.series}
    places = np.array([positions[str(ds.SOPInstanceUID)] for ds in found.series])
    along = places[:, 2] - places[0, 2]
    reach = np.concatenate([np.diff(along)[:1], (np.diff(along)[1:] + np.diff(along)[:-1]) / 2, np.diff(along)[-1:]])
    total, weight = np.zeros(3), 0.0
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.array_equal(position, positions[reference.ReferencedSOPInstanceUID])
        k = int(np.argmin(np.abs(along - (position - places[0])[2])))
        rows, columns = np.nonzero(mask)
        pixels = position + rows[:, None] * [0, 0.9, 0] + columns[:, None] * [0.8, 0, 0]
        total, weight = total + reach[k] * pixels.sum(axis=0), weight + reach[k] * len(pixels)
    assert np.linalg.norm(total / weight - found.centre_mm) < 0.5
    assert weight * 0.9 * 0.8 / 1000 == pytest.approx(found.volume_ml, rel=0.02)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.get("SpacingBetweenSlices") == (2.0 if len(set(np.diff(along).round(6))) == 1 else None)
    sr = dcmread(objects["SR"])
    volumes = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in _walk(sr)
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "118565006"
    ]
    assert volumes == [pytest.approx(found.volume_ml, rel=0.02)]
    assert any("measurements were made on a regular grid" in str(item.get("TextValue", "")) for item in _walk(sr))


@IRREGULAR
def test_independent_judges_find_nothing_wrong_but_that_there_is_no_volume(
    tmp_path: Path, found: Phantom, check_objects: Path
) -> None:
    objects, source = _analysed(tmp_path, found)
    judged = subprocess.run(
        [sys.executable, check_objects, objects["SEG"].parent, source], capture_output=True, text=True, check=False
    )
    # dcmqi makes no volume of slices that are no regular one; what is no geometry must hold.
    assert "PASS sr.dcm" in judged.stdout, judged.stdout
    assert "PASS dcentvfy" in judged.stdout, judged.stdout
    assert not re.search(r"dciodvfy (?!W:)", judged.stdout), judged.stdout


def test_a_regular_series_is_the_same_job_whether_or_not_its_route_allows_resampling(tmp_path: Path) -> None:
    found = phantom(evenly(12, 2.0), radius_mm=8.0)
    ids = []
    for number, resample in enumerate([(), tuple(Resample)]):
        with working(tmp_path / str(number), routes=[replace(PLAIN, resample=resample)]) as work:
            (job,) = _jobs(work, found)
            assert job.state is JobState.DONE
            ids.append(job.job_id)
    assert ids[0] == ids[1]


def test_a_mask_that_was_brought_back_to_the_wrong_place_is_not_sent(tmp_path: Path) -> None:
    writer = _KeepingWriter()
    with working(tmp_path, routes=[BOTH], writer=writer) as work:
        _jobs(work, tilted())
        result, objects = writer.seen[0]
        Writer().verify(result, objects)
        for changed, said in _wrong(result):
            with pytest.raises(VerificationFailed, match=said):
                Writer().verify(changed, objects)


def _wrong(result: Result) -> Iterator[tuple[Result, str]]:
    """Yield results whose masks on the source's slices are not what the engine found."""
    analysed = result.analysed
    assert analysed is not None
    labels, grid = analysed.findings.labels, analysed.grid
    assert labels is not None

    def with_labels(changed: npt.NDArray[np.uint8]) -> Result:
        return replace(result, analysed=replace(analysed, findings=replace(analysed.findings, labels=changed)))

    for axis in range(3):
        yield with_labels(np.roll(labels, 3, axis)), "lies where the engine found none"
    yield with_labels(np.zeros_like(labels)), "not on the source's slices as the engine found it"
    yield with_labels(np.maximum(labels, np.roll(labels, 30, 1))), "measured volume|have its size"
    (measured,) = analysed.findings.measurements
    numbers = replace(analysed.findings, measurements=(replace(measured, value=1.0),))
    yield replace(result, analysed=replace(analysed, findings=numbers)), "not those of the regular grid"
    other = replace(grid, frame_of_reference_uid="1.2.3")
    yield replace(result, analysed=replace(analysed, grid=other)), "frame of reference"


def test_a_route_that_no_longer_allows_it_ends_the_job_with_the_refusal(tmp_path: Path) -> None:
    with working(tmp_path, routes=[BOTH]) as work:
        work.receive(tilted().series)
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        assert [task.step for task in work.steps.run(plan)] == ["infer"]
    with working(tmp_path, routes=[replace(BOTH, resample=())]) as work:
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.NOT_RUN, "gantry-tilt")


def test_a_real_tilted_head_phantom_is_analysed_where_the_route_allows_it(
    tmp_path: Path, unpacked: Callable[[str], Path]
) -> None:
    folder = unpacked("ct/headphantom_Philips_gantrytilt+16.5_58sl")
    series = [dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "DIRFILE"]
    with working(tmp_path, routes=[BOTH]) as work:
        work.receive(series)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE, job.reason
        seg = next(dcmread(item.path) for item in work.store.jobs.objects(job.job_id) if item.kind == "SEG")
    positions = {str(ds.SOPInstanceUID): [float(x) for x in ds.ImagePositionPatient] for ds in series}
    threshold = {
        str(ds.SOPInstanceUID): ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept > -500 for ds in series
    }
    for group, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert [float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient] == positions[uid]
        # Half a pixel of rounding along the columns changes the edge only.
        assert np.mean(mask.astype(bool) != threshold[uid]) < 0.01


def _jobs(work: Work, found: Phantom) -> list[Job]:
    work.receive(found.series)
    work.settle()
    return work.store.jobs.find()


def _analysed(folder: Path, found: Phantom) -> tuple[dict[str, Path], Path]:
    """Return the objects that are written of a phantom, by kind, and a folder with its slices."""
    source = folder / "source"
    source.mkdir()
    with working(folder / "store", routes=[PLAIN, BOTH]) as work:
        (job,) = _jobs(work, found)
        assert (job.state, job.route) == (JobState.DONE, "both"), job.reason
        for instance in work.store.series.instances(job.series_instance_uid):
            shutil.copy(instance.path, source)
        return {item.kind: item.path for item in work.store.jobs.objects(job.job_id)}, source


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _walk(child)


class _KeepingWriter(Writer):
    """Keeps what was verified."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Result, Sequence[ResultObject]]] = []

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        super().verify(result, objects)
        self.seen.append((result, objects))
