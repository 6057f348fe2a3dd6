"""Files of the store that change behind the gateway's back, without a change of size."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn import rectangle, referenced, report, scoord, segmentation
from factories import copied, ct_series
from pointing import pointing, settle
from pydicom.dataset import Dataset
from working import Work, working

from domain.errors import NotApplicable
from domain.instance import Disposition
from domain.job import Job, JobState
from gateway.operator import retry
from pipeline.rules import Route

REASON = "The stored files of InstanceNumber 3 are not what was received: "


def body(slices: int = 6) -> list[Dataset]:
    voxels = np.full((slices, 16, 20), -1000, np.int16)
    voxels[1:-1, 4:12, 5:15] = 40
    return ct_series(slices, voxels=voxels)


def path_of(work: Work, dataset: Dataset) -> Path:
    (instance,) = work.store.series.instances_by_uid((str(dataset.SOPInstanceUID),))
    return instance.path


def changed_in_place(path: Path, old: bytes, new: bytes) -> None:
    """Change the last occurrence of some bytes; size and times stay, as when a disk rots."""
    before, content = path.stat(), path.read_bytes()
    start = content.rindex(old)
    assert len(old) == len(new)
    path.write_bytes(content[:start] + new + content[start + len(old) :])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def pixel_of(path: Path) -> None:
    changed_in_place(path, path.read_bytes()[-2:], b"\x7f\x01")


def slope_of(path: Path) -> None:
    changed_in_place(path, b"DS\x02\x001 ", b"DS\x02\x002 ")


def patient_of(path: Path) -> None:
    name = str(pydicom.dcmread(path).PatientID).encode()
    changed_in_place(path, name, name[::-1])


def only_job(work: Work) -> Job:
    (job,) = work.store.jobs.find()
    return job


@pytest.mark.parametrize("change", [pixel_of, slope_of, patient_of])
def test_a_file_that_changed_before_the_engine_saw_it_ends_the_job_with_its_reason(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    series = body()
    with working(tmp_path) as work:
        work.receive(series)
        change(path_of(work, series[2]))
        work.settle()
        job = only_job(work)
        assert (job.state, job.code) == (JobState.FAILED, "instance-damaged")
        assert job.reason.startswith(REASON)
        assert job.summary == []
        assert not work.destination.sent
        assert not list(work.store.results.rglob("*.dcm"))


def test_what_an_engine_says_of_a_changed_file_is_not_said(tmp_path: Path) -> None:
    series = body()
    with working(tmp_path, routes=(Route(name="all", engine="threshold", report_refusals=True),)) as work:
        work.engines.only.fail_with = NotApplicable("There is nothing in it.")
        work.receive(series)
        pixel_of(path_of(work, series[2]))
        work.settle()
        assert only_job(work).reason.startswith(REASON)
        assert not work.destination.sent  # a report would name the patient that the file names now


def test_the_series_sent_again_replaces_the_damaged_file_and_the_job_can_be_retried(tmp_path: Path) -> None:
    series = body()
    with working(tmp_path) as work:
        work.receive(series)
        damaged = path_of(work, series[2])
        pixel_of(damaged)
        work.settle()
        outcomes = work.receive(series)
        assert {item.disposition for item in outcomes} == {Disposition.DUPLICATE}
        assert path_of(work, series[2]) != damaged
        assert not damaged.exists()
        retry(work.store.jobs, work.store.series, only_job(work).job_id)
        work.settle()
        assert only_job(work).state is JobState.DONE
        assert work.destination.sent


def test_a_file_that_is_no_dataset_any_more_is_a_damaged_one(tmp_path: Path) -> None:
    series = body()
    with working(tmp_path) as work:
        work.receive(series)
        path = path_of(work, series[2])
        path.write_bytes(bytes(path.stat().st_size))
        work.settle()
        assert only_job(work).code == "instance-damaged"


def test_the_file_that_names_the_patient_is_looked_at_again_before_objects_are_written(tmp_path: Path) -> None:
    series = body()
    with working(tmp_path) as work:
        work.receive(series)
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        for step in ("plan", "infer"):
            task = work.queue.take()
            assert task is not None
            assert task.step == step
            for following in work.steps.run(task):
                work.queue.enqueue(following)
        assert only_job(work).summary
        patient_of(path_of(work, series[0]))
        work.settle()
        assert only_job(work).code == "instance-damaged"
        assert not work.destination.sent
        assert not work.store.jobs.objects(only_job(work).job_id)


def test_a_drawing_that_changed_prompts_nothing(tmp_path: Path) -> None:
    series = ct_series(4)
    drawing = report(series, [scoord(series[1], "POLYLINE", rectangle(3, 4, 9, 10))])
    with pointing(tmp_path) as (work, engine):
        work.receive([*series, drawing])
        settle(work)
        (job,) = (job for job in work.store.jobs.find() if job.drawing)
        corner = np.array([3, 4], "<f4").tobytes()
        changed_in_place(path_of(work, drawing), corner, np.array([4, 4], "<f4").tobytes())
        work.store.jobs.update(job.job_id, state=JobState.QUEUED, attempt=2)
        settle(work)
        again = work.store.jobs.get(job.job_id)
        assert again is not None
        assert (again.state, again.code) == (JobState.FAILED, "instance-damaged")
        assert len(engine.prompts) == 2  # the second one's answer did not count


def test_a_report_whose_segmentation_changed_prompts_nothing(tmp_path: Path) -> None:
    series = ct_series(4)
    mask = np.zeros((1, 4, 16, 20), bool)
    mask[0, 1, 4:10, 3:9] = True
    seg = segmentation(series, mask)
    drawing = report(series, [referenced(seg)])
    with pointing(tmp_path) as (work, _):
        work.receive([*series, seg, drawing])
        settle(work)
        (job,) = (job for job in work.store.jobs.find() if job.drawing == drawing.SOPInstanceUID)
        assert job.state is JobState.DONE
        pixels = bytes(seg.PixelData)
        changed_in_place(path_of(work, seg), pixels, bytes([pixels[0] ^ 1]) + pixels[1:])
        work.store.jobs.update(job.job_id, state=JobState.QUEUED, attempt=2)
        settle(work)
        again = work.store.jobs.get(job.job_id)
        assert again is not None
        assert (again.state, again.code) == (JobState.FAILED, "instance-damaged")


def test_a_drawing_that_changed_before_objects_were_written_is_named_by_none(tmp_path: Path) -> None:
    series = ct_series(4)
    drawing = report(series, [scoord(series[1], "POLYLINE", rectangle(3, 4, 9, 10))])
    with pointing(tmp_path) as (work, engine):
        work.receive(series)
        settle(work)
        work.receive([drawing])
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        while not engine.prompts:
            task = work.queue.take()
            assert task is not None
            for following in work.steps.run(task):
                work.queue.enqueue(following)
        corner = np.array([3, 4], "<f4").tobytes()
        changed_in_place(path_of(work, drawing), corner, np.array([4, 4], "<f4").tobytes())
        settle(work)
        (job,) = (job for job in work.store.jobs.find() if job.drawing)
        assert (job.state, job.code) == (JobState.FAILED, "instance-damaged")
        assert not work.destination.sent


def test_an_untouched_series_that_lies_elsewhere_now_is_as_it_was(tmp_path: Path) -> None:
    series = copied(body())
    with working(tmp_path / "before") as work:
        work.receive(series)
    (tmp_path / "before").rename(tmp_path / "after")
    with working(tmp_path / "after") as work:
        work.settle()
        assert only_job(work).state is JobState.DONE
