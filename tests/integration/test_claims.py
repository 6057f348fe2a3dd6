"""A worker that was frozen and replaced writes nothing when it resumes; an engine that only crashes is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from factories import ct_series
from working import OneEngine, RecordingDestination, ThresholdEngine, Work, working

from dicom_out.writer import Writer
from domain.engine import Case
from domain.errors import ClaimLost
from domain.findings import Findings
from domain.job import DeliveryState, JobState, ResultObject
from domain.ports import Result, SendReport
from gateway.operator import retry
from pipeline.task import Task


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def body() -> list[pydicom.Dataset]:
    voxels = np.full((5, 16, 20), -1000, np.int16)
    voxels[1:-1, 4:12, 5:15] = 40
    return ct_series(5, voxels=voxels)


class Frozen:
    """Once, at a chosen moment: everything that somebody else does while this worker stands still."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] | None = None

    def stands_still(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


@dataclass
class FreezingEngine(ThresholdEngine):
    """Stands still when it has its findings."""

    frozen: Frozen

    def __post_init__(self) -> None:
        ThresholdEngine.__init__(self)

    def run(self, case: Case) -> Findings:
        findings = super().run(case)
        self.frozen.stands_still()
        return findings


@dataclass
class FreezingWriter:
    """Stands still when it has written its objects."""

    frozen: Frozen
    writer: Writer = field(default_factory=Writer)

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        return self.writer.write(result, folder)

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        self.writer.verify(result, objects)
        self.frozen.stands_still()


@dataclass
class FreezingDestination(RecordingDestination):
    """Stands still when it has sent everything."""

    frozen: Frozen = field(default_factory=Frozen)

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        reports = super().send(paths)
        self.frozen.stands_still()
        return reports


def ready_to_run(work: Work) -> Task:
    """Let a series arrive and be planned; return the task that waits then."""
    work.receive(body())
    work.clock.sleep(11)
    work.watch.hand_on_complete_series()
    task = work.queue.take()
    assert task is not None
    (following,) = work.steps.run(task)
    return following


def work_off(work: Work, tasks: Sequence[Task]) -> None:
    """Run tasks and everything that follows."""
    for task in tasks:
        work_off(work, work.steps.run(task))


def state_of(work: Work) -> tuple[object, ...]:
    """Return all that a second result would change."""
    (job,) = work.store.jobs.find()
    files = {path: path.read_bytes() for path in work.store.results.rglob("*") if path.is_file()}
    return job, work.store.jobs.objects(job.job_id), work.store.jobs.deliveries(job.job_id), files


@pytest.mark.parametrize("step", ["infer", "encode", "deliver"])
def test_who_was_replaced_writes_nothing(tmp_path: Path, database_url: str, step: str) -> None:
    frozen = Frozen()
    destination = FreezingDestination(frozen=frozen if step == "deliver" else Frozen())
    engines = OneEngine(only=FreezingEngine(frozen if step == "infer" else Frozen()))
    writer = FreezingWriter(frozen if step == "encode" else Frozen())
    with working(
        tmp_path,
        database_url=database_url,
        engines=engines,
        writer=writer,
        destinations={"pacs": destination},
    ) as work:
        tasks = [ready_to_run(work)]
        while tasks[0].step != step:
            tasks = work.steps.run(tasks[0])
        replaced: list[tuple[object, ...]] = []

        def another_worker_does_it_all() -> None:
            work_off(work, tasks)
            replaced.append(state_of(work))

        frozen.meanwhile = another_worker_does_it_all
        assert work.steps.run(tasks[0]) == []
        assert replaced == [state_of(work)]
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE
        assert {item.attempts for item in work.store.jobs.deliveries(job.job_id)} == {1}
        written = sorted(path.name for path in work.store.results.rglob("*.dcm"))
        assert written == ["seg.dcm", "sr-comprehensive.dcm", "sr.dcm"]
        assert destination.attempts == (2 if step == "deliver" else 1)


def test_who_resumes_before_a_delivery_does_not_send(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        (encode,) = work.steps.run(ready_to_run(work))
        (deliver,) = work.steps.run(encode)
        jobs = work.store.jobs
        with jobs.claiming(str(deliver.args[0]), "deliver/pacs"):
            work_off(work, [deliver])
            with pytest.raises(ClaimLost):
                jobs.confirm_claim()
            with pytest.raises(ClaimLost):
                jobs.update(str(deliver.args[0]), state=JobState.FAILED)
            with pytest.raises(ClaimLost):
                jobs.set_delivery(str(deliver.args[0]), "pacs", "1.2", state=DeliveryState.DEAD)
        assert work.destination.attempts == 1


def test_parts_of_a_job_are_claimed_apart(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        jobs, job_id = work.store.jobs, str(ready_to_run(work).args[0])
        with jobs.claiming(job_id, "deliver/one") as first:
            with jobs.claiming(job_id, "deliver/two"):
                jobs.confirm_claim()
            jobs.confirm_claim()
        with jobs.claiming(job_id, "deliver/one") as second:
            assert (first, second) == (1, 2)


@dataclass
class NotingGuard:
    """An ``EngineGuard`` that remembers what it was told."""

    causes: list[str] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, job_id: str, attempt: int, deadline_s: float) -> Iterator[None]:
        self.deadlines_s.append(deadline_s)
        yield

    def crashes(self, job_id: str, attempt: int) -> Sequence[str]:
        return self.causes if attempt == 1 else ()

    def forget(self, job_id: str) -> None:
        self.forgotten.append(job_id)


def test_three_crashes_of_an_engine_end_its_job_and_a_retry_begins_anew(tmp_path: Path) -> None:
    guard = NotingGuard(causes=["it aborted (SIGABRT)"] * 3)
    with working(tmp_path, guard=guard) as work:
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.FAILED, "engine-crashed")
        assert "3 times" in job.reason
        assert "SIGABRT" in job.reason
        assert (work.engines.only.runs, guard.forgotten) == (0, [job.job_id])
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.attempt) == (JobState.DONE, 2)


def test_two_crashes_are_not_enough_and_the_deadline_is_the_engines_own(tmp_path: Path) -> None:
    guard = NotingGuard(causes=["it aborted (SIGABRT)"] * 2)
    with working(tmp_path, guard=guard) as work:
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE
        assert guard.deadlines_s == [1800]
