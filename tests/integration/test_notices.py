"""Why there is no result is told to the destinations of routes that ask for it, once, and kept apart from results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from deliveries import finish, small_series
from dying import Killed, dies_at, recorded
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SegmentationStorage
from working import Work, working

from dicom_out.profile import BUILT_IN
from dicom_out.writer import Writer
from domain.errors import EngineFailed, NotApplicable, VerificationFailed
from domain.job import Job, JobState
from domain.ports import SendReport
from gateway.operator import retry
from pipeline.rules import Route
from pipeline.task import Task

ASKING = (Route(name="all", engine="threshold", report_refusals=True),)


class Keeping:
    """A ``Destination`` in memory that keeps what it is sent."""

    def __init__(self) -> None:
        self.name = "pacs"
        self.held: list[Dataset] = []

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        self.held += [dcmread(path) for path in paths]
        return [SendReport(sop_instance_uid="") for _ in paths]

    @property
    def classes(self) -> list[str]:
        return [str(ds.SOPClassUID) for ds in self.held]


def statements(report: Dataset) -> dict[str, str]:
    """Return the qualitative evaluations of a TID 1500 report by name."""
    said = {}
    for part in report.ContentSequence:
        if part.ConceptNameCodeSequence[0].CodeValue == "C0034375":
            for item in part.ContentSequence:
                name = item.ConceptNameCodeSequence[0].CodeMeaning
                said[name] = item.TextValue if "TextValue" in item else item.ConceptCodeSequence[0].CodeMeaning
    return said


def ended(work: Work) -> Job:
    work.settle()
    return finish(work, hours=1)


def test_an_engine_for_which_a_series_is_not_says_so_in_a_report(tmp_path: Path) -> None:
    pacs = Keeping()
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}) as work:
        work.engines.only.fail_with = NotApplicable("The kidneys are not in the images.")
        work.receive(small_series())
        job = ended(work)
        assert (job.state, job.code) == (JobState.NOT_APPLICABLE, "not-applicable")
        assert job.reason == "The kidneys are not in the images."
        ended(work)
    (report,) = pacs.held
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert statements(report) == {
        "Summary of Analyses": "Not Attempted",
        "Cause": "not applicable",
        "Comment": "The kidneys are not in the images.",
    }


def test_missing_slices_are_told_by_the_route_that_would_have_taken_them(tmp_path: Path) -> None:
    pacs, series = Keeping(), small_series()
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}) as work:
        work.receive([series[0], series[1], series[3]])
        job = ended(work)
        assert (job.state, job.code, job.route) == (JobState.NOT_RUN, "missing-slices", "all")
        assert statements(pacs.held[0])["Cause"] == "missing slices"
        work.receive([series[2]])  # and when they come there is a result
        work.settle()
        newest = work.store.jobs.find()[0]
        assert (newest.state, newest.generation) == (JobState.DONE, 2)
    assert pacs.classes == [Comprehensive3DSRStorage, SegmentationStorage, Comprehensive3DSRStorage]


def test_a_failure_is_told_and_a_retry_that_succeeds_delivers_the_result(tmp_path: Path) -> None:
    pacs = Keeping()
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}) as work:
        work.engines.only.fail_with = EngineFailed("The model cannot.")
        work.receive(small_series())
        job = ended(work)
        assert (job.state, job.code) == (JobState.FAILED, "engine-failed")
        assert statements(pacs.held[0])["Summary of Analyses"] == "Failed"
        work.engines.only.fail_with = None
        retry(work.store.jobs, work.store.series, job.job_id)
        job = ended(work)
        assert (job.state, job.code) == (JobState.DONE, "")
    assert pacs.classes == [Comprehensive3DSRStorage, SegmentationStorage, Comprehensive3DSRStorage]
    assert len({ds.SOPInstanceUID for ds in pacs.held}) == 3


def test_who_gets_text_is_told_in_words(tmp_path: Path) -> None:
    pacs = Keeping()
    writer = Writer(profiles={"pacs": BUILT_IN["pacs-basic"]})
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}, writer=writer) as work:
        work.engines.only.fail_with = NotApplicable("No lung.")
        work.receive(small_series())
        ended(work)
    assert pacs.classes == [BasicTextSRStorage]


@pytest.mark.parametrize("routes", [(Route(name="all", engine="threshold"),)])
def test_nobody_is_told_who_does_not_ask(tmp_path: Path, routes: tuple[Route, ...]) -> None:
    pacs = Keeping()
    with working(tmp_path, routes=routes, destinations={"pacs": pacs}) as work:
        work.engines.only.fail_with = NotApplicable("No lung.")
        work.receive(small_series())
        assert ended(work).state is JobState.NOT_APPLICABLE
    assert not pacs.held


def test_a_death_before_any_write_still_tells_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = 0
    for number in range(0, 20, 3):
        pacs, folder = Keeping(), tmp_path / str(number)
        with working(folder, routes=ASKING, destinations={"pacs": pacs}) as work, monkeypatch.context() as patched:
            work.engines.only.fail_with = NotApplicable("No lung.")
            work.receive(small_series())
            ran = recorded(work, patched)
            dies_at(work, number, patched, ("update", "put_objects", "set_delivery"))
            try:
                work.settle()
                ran.clear()
            except Killed:
                died += 1
        with working(folder, routes=ASKING, destinations={"pacs": pacs}) as work:
            work.engines.only.fail_with = NotApplicable("No lung.")
            for task in ran[-1:]:  # a task that was running is put back
                work.queue.enqueue(task)
            job = ended(work)
            assert (job.state, job.code, job.reason) == (JobState.NOT_APPLICABLE, "not-applicable", "No lung.")
        assert len({ds.SOPInstanceUID for ds in pacs.held}) == 1
    assert 3 <= died < 7


def dies_before_its_notice_is_queued(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until a job is refused and the process dies."""

    def die(*_: Any) -> list[Task]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.delivering.Delivering.begin", die)
        with pytest.raises(Killed):
            work.settle()


def test_a_result_after_a_death_behind_a_refusal_is_delivered_as_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs = Keeping()
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}) as work:
        work.engines.only.fail_with = EngineFailed("The device was lost.")
        work.receive(small_series())
        dies_before_its_notice_is_queued(work, monkeypatch)
        work.engines.only.fail_with = None
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.RUNNING, "engine-failed")
        work.queue.enqueue(Task(step="infer", args=(job.job_id, job.attempt, 2), queue="infer-cpu"))
        work.settle()
        (job,) = work.store.jobs.find()
    assert (job.state, job.code) == (JobState.DONE, "")
    assert pacs.classes == [SegmentationStorage, Comprehensive3DSRStorage]


def test_a_result_that_verifies_after_a_death_behind_its_refusal_is_delivered_as_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs = Keeping()
    with working(tmp_path, routes=ASKING, destinations={"pacs": pacs}) as work:
        work.receive(small_series())

        real, calls = work.steps._writer.verify, []

        def once(*args: Any) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise VerificationFailed("They differ.")
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(work.steps._writer, "verify", once)
            dies_before_its_notice_is_queued(work, monkeypatch)
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.RUNNING, "verification-failed")
        work.queue.enqueue(Task(step="encode", args=(job.job_id, job.attempt, 2), queue="cpu"))
        work.settle()
        (job,) = work.store.jobs.find()
    assert (job.state, job.code) == (JobState.DONE, "")
    assert pacs.classes == [SegmentationStorage, Comprehensive3DSRStorage]
