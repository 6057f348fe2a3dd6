"""What happens to the promises of the pipeline when something underneath goes wrong between two statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from pydicom.dataset import Dataset
from working import Work, working

from domain.errors import EngineFailed, EngineUnavailable, PeerUnreachable, StorageError
from domain.instance import Disposition
from domain.job import DeliveryState, Job, JobState
from gateway.operator import retry


def body(slices: int = 6) -> list[Dataset]:
    voxels = np.full((slices, 16, 20), -1000, np.int16)
    voxels[1:-1, 4:12, 5:15] = 40
    return ct_series(slices, voxels=voxels)


def later(work: Work) -> None:
    """Let the time pass after which the watch looks for what got lost; the log stamps its rows with real time."""
    work.clock.now = max(work.clock.now, datetime.now(UTC)) + timedelta(minutes=5)
    work.watch.restart_stranded_jobs()
    work.settle()


def only_job(work: Work) -> Job:
    (job,) = work.store.jobs.find()
    return job


@contextmanager
def index_down(work: Work, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every write to the job log fail, as when its disk is full."""

    def fails(*_: object, **__: object) -> None:
        raise StorageError("The index could not be read or written")

    with monkeypatch.context() as patch:
        for name in ("add", "update"):
            patch.setattr(type(work.store.jobs), name, fails)
        yield


def test_a_job_whose_objects_are_all_stored_is_brought_to_its_end(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerUnreachable()
        work.receive(body())
        work.settle()
        job = only_job(work)
        for item in work.store.jobs.deliveries(job.job_id):  # confirmed, and killed before the job was ended
            work.store.jobs.set_delivery(
                job.job_id, item.destination, item.sop_instance_uid, state=DeliveryState.STORED
            )
        work.queue.waiting.clear()
        later(work)
        assert only_job(work).state is JobState.DONE


def test_a_plan_that_got_lost_after_it_was_handed_on_is_made_again(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.receive(body())
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        work.queue.waiting.clear()  # the engine's tables were lost, or the workflow ended in an error
        work.settle()
        assert work.store.jobs.find() == []
        work.settle(quiet_s=120)
        work.settle()
        assert only_job(work).state is JobState.DONE


def test_late_slices_whose_plan_got_lost_are_planned_again(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body(8)
        work.receive(series[:6])
        work.settle()
        work.receive(series[6:])
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        work.queue.waiting.clear()
        work.settle(quiet_s=120)
        work.settle(quiet_s=120)
        assert [job.generation for job in work.store.jobs.find()] == [2, 1]


def test_a_fault_while_planning_that_could_not_even_be_noted_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with working(tmp_path) as work:
        work.receive(body())
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        with monkeypatch.context() as patch, index_down(work, monkeypatch):
            patch.setattr("pipeline.planning.group_stored", broken)
            (again,) = work.steps.run(plan)
        assert again.delay_s > 0
        work.queue.enqueue(again)
        work.settle(quiet_s=120)
        assert only_job(work).state is JobState.DONE


def test_other_instances_of_a_series_that_was_removed_are_planned(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        first, second = body(), body()
        for dataset in second:
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (
                first[0].SeriesInstanceUID,
                first[0].StudyInstanceUID,
            )
        work.receive(first)
        work.settle()
        work.store.series.remove_series(first[0].SeriesInstanceUID)
        work.receive(second)  # as many as before: revisions and plans are counted alike
        for quiet_s in (11, 120, 11):
            work.settle(quiet_s=quiet_s)
        assert [job.state for job in work.store.jobs.find()] == [JobState.DONE, JobState.DONE]


def test_what_waits_says_why(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = EngineUnavailable("The device is gone.")
        work.receive(body())
        work.settle()
        assert "The device is gone." in only_job(work).reason
        work.engines.only.fail_with = None
        work.settle(quiet_s=16)
        assert (only_job(work).state, only_job(work).reason) == (JobState.DONE, "")


def test_a_stored_file_that_is_gone_is_named_and_heals_by_a_re_send(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        (lost, *_) = work.store.series.instances(series[0].SeriesInstanceUID)
        lost.path.unlink()
        work.settle()
        assert "stored file" in only_job(work).reason
        assert not only_job(work).state.is_final
        work.receive(series)
        work.settle(quiet_s=16)
        assert only_job(work).state is JobState.DONE


def test_a_stored_file_that_was_cut_off_heals_by_a_re_send_and_a_retry(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        (cut, *_) = work.store.series.instances(series[0].SeriesInstanceUID)
        cut.path.write_bytes(cut.path.read_bytes()[:-100])
        work.settle()
        refused = only_job(work)
        assert (refused.state, refused.code) == (JobState.FAILED, "instance-damaged")
        assert {outcome.disposition for outcome in work.receive(series)} == {Disposition.DUPLICATE}
        retry(work.store.jobs, work.store.series, refused.job_id)
        work.settle()
        assert only_job(work).state is JobState.DONE


def test_a_series_that_cannot_be_planned_for_want_of_a_file_says_so(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        again = body()[2:3]
        for dataset in again:  # a second image at the same place: both are decoded to compare them
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
                setattr(dataset, keyword, getattr(series[0], keyword))
        work.receive([*series, *again])
        gone = next(
            i for i in work.store.series.instances(series[0].SeriesInstanceUID) if i.header.instance_number == 3
        )
        gone.path.unlink()
        work.settle()
        job = only_job(work)
        assert job.state is JobState.NOT_RUN
        assert "tried again" in job.reason
        work.receive([*series, *again])
        work.settle(quiet_s=16)
        found = {(job.state, job.code) for job in work.store.jobs.find()}
        assert found == {(JobState.DONE, ""), (JobState.NOT_RUN, "repeated-images")}


def test_results_that_were_deleted_are_made_again_by_a_retry(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerUnreachable()
        work.receive(body())
        work.settle()
        for item in work.store.jobs.objects(only_job(work).job_id):
            item.path.unlink()
        work.destination.fail_with = None
        work.queue.waiting.clear()
        job = only_job(work)
        work.store.jobs.update(job.job_id, state=JobState.FAILED, code="not-delivered")
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        assert only_job(work).state is JobState.DONE
        assert [path.is_file() for path in work.destination.sent] == [True, True]


def test_an_operator_who_cancels_while_a_step_begins_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(tmp_path) as work:
        get = type(work.store.jobs).get
        cancelled = False

        def get_and_cancel(table: object, job_id: str) -> Job | None:
            nonlocal cancelled
            job = get(work.store.jobs, job_id)
            if job is not None and not cancelled and work.queue.waiting == []:
                cancelled = True  # between reading the job and saying that it runs
                work.store.jobs.update(job_id, state=JobState.CANCELLED, code="cancelled", reason="By an operator.")
            return job

        work.receive(body())
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        (infer,) = work.steps.run(plan)
        monkeypatch.setattr(type(work.store.jobs), "get", get_and_cancel)
        for following in work.steps.run(infer):
            work.queue.enqueue(following)
        monkeypatch.undo()
        work.settle()
        assert only_job(work).state is JobState.CANCELLED
        assert work.destination.sent == []
        assert not (work.store.results / only_job(work).job_id).exists()


@pytest.mark.parametrize("fails", [True, False])
def test_a_conflicting_copy_that_comes_later_does_not_hide_how_the_job_ended(tmp_path: Path, fails: bool) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = EngineFailed("It does not fit.") if fails else None
        series = body()
        work.receive(series)
        work.settle()
        for value in (1, 2):
            changed = series[2].copy()
            changed.PixelData = bytes([value]) * len(changed.PixelData)
            work.receive([changed])
            work.settle()
        job = only_job(work)
        assert job.reason.count("other content") == 1
        assert "2" in job.reason
        assert ("It does not fit." in job.reason, job.code) == ((True, "engine-failed") if fails else (False, ""))


def test_planning_again_keeps_the_reason_of_what_was_refused_by_its_pixels(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        (cut, *_) = work.store.series.instances(series[0].SeriesInstanceUID)
        cut.path.write_bytes(cut.path.read_bytes()[:-100])
        work.settle()
        before = only_job(work)
        work.store.series.thaw(series[0].SeriesInstanceUID)
        work.settle()
        assert (only_job(work).code, only_job(work).reason) == (before.code, before.reason)


def test_a_mask_of_another_shape_is_the_engines_fault_and_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(tmp_path) as work:
        run = type(work.engines.only).run

        def shifted(engine: object, case: object) -> object:
            findings = run(work.engines.only, case)  # type: ignore[arg-type]
            assert findings.labels is not None
            return replace(findings, labels=np.ascontiguousarray(findings.labels[:, :, 1:]))

        monkeypatch.setattr(type(work.engines.only), "run", shifted)
        work.receive(body())
        work.settle()
        assert (only_job(work).state, only_job(work).code) == (JobState.FAILED, "engine-failed")
        assert work.destination.sent == []
