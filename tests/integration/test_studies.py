"""Images and cine through the whole pipeline with an engine of the tests: each alone, and studies as one case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ct_series
from pictures import cine, radiograph
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from working import BODY, MANIFEST, OneEngine, ThresholdEngine, Work, working

from domain.engine import Answer, Case, Verdict
from domain.errors import EngineFailed, StorageError
from domain.findings import Detection, Findings
from domain.image import Raster
from domain.instance import StoredInstance
from domain.job import Job, JobState, ResultObject
from domain.ports import Result
from domain.series import SeriesFacts, StackKind
from pipeline.rules import Route
from pipeline.statements import PART_OF_STUDY

STUDY = Route(name="chest", engine="threshold", unit="study", modality=("DX",))


class ImageEngine(ThresholdEngine):
    """Marks what is bright in the first image, and puts a box into the last place."""

    def __init__(self) -> None:
        super().__init__()
        self.cases: list[Case] = []

    def run(self, case: Case) -> Findings:
        self.cases.append(case)
        if self.fail_with is not None:
            raise self.fail_with
        first = case.images[0]
        place = len(case.images) - 1 if len(case.images) > 1 else first.raster.shape[0] - 1
        box = Detection(key="1", label="Body", category=BODY.category, type=BODY.type, box=(0, 0, 5, 5), image=place)
        return Findings(
            labels=(np.asarray(first.pixels, np.int32) > 100).astype(np.uint8), segments=(BODY,), detections=(box,)
        )


class ImageEngines(OneEngine):
    def accepts(self, name: str, facts: SeriesFacts) -> Verdict:
        is_image = facts.kind is not StackKind.VOLUME
        return Verdict(Answer.YES if is_image else Answer.NO, "images only")


class NotingWriter:
    """A ``ResultWriter`` that writes one file and remembers what it was given."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, result: Result, folder: Path, destinations: Sequence[str] = ()) -> tuple[ResultObject, ...]:
        self.results.append(result)
        path = folder / "note"
        path.write_text("x")
        return (
            ResultObject(
                job_id=result.job_id, kind="NOTE", sop_class_uid="1.2.3", sop_instance_uid=generate_uid(),
                series_instance_uid=generate_uid(), path=path,
            ),
        )  # fmt: skip

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        """Nothing to decode."""


@contextmanager
def imaging(folder: Path, *routes: Route) -> Iterator[tuple[Work, ImageEngine, NotingWriter]]:
    engine, writer = ImageEngine(), NotingWriter()
    engines = ImageEngines(only=engine, manifest_now=MANIFEST)
    with working(folder, routes=routes or (STUDY,), engines=engines, writer=writer) as work:
        yield work, engine, writer


def of_study(ds: Dataset, study: str, *, series: str = "", date: str = "20240102", patient: str = "P1") -> Dataset:
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series or generate_uid()
    ds.StudyDate, ds.PatientID = date, patient
    return ds


def run_jobs(work: Work) -> list[Job]:
    """The jobs with a route, oldest first."""
    return [job for job in reversed(work.store.jobs.find()) if job.route]


def test_a_cine_goes_the_whole_way_frame_by_frame(tmp_path: Path) -> None:
    with imaging(tmp_path, Route(name="echo", engine="threshold")) as (work, engine, writer):
        work.receive([cine(4)])
        work.settle()
        (job,) = run_jobs(work)
        (case,), (result,) = engine.cases, writer.results
    assert job.state is JobState.DONE, job.reason
    assert case.volume is None
    assert case.images[0].frame_times_ms == (0.0, 40.0, 80.0, 120.0)
    assert isinstance(result.grid, Raster)
    assert result.grid.shape == (4, 36, 40)
    assert result.findings.labels is not None
    assert result.findings.labels.sum() == 4 * 36
    assert result.source_frames == (1, 2, 3, 4)
    assert len(set(result.source_paths)) == 1
    assert result.findings.detections[0].image == 3


def test_each_image_of_a_series_is_a_job_of_its_own(tmp_path: Path) -> None:
    series = generate_uid()
    with imaging(tmp_path, Route(name="all", engine="threshold")) as (work, _, writer):
        work.receive([of_study(radiograph(number=n), "1.2.3", series=series) for n in (1, 2)])
        work.settle()
        assert [job.state for job in run_jobs(work)] == [JobState.DONE] * 2
        assert [len(result.source_paths) for result in writer.results] == [1, 1]
        assert {job.stack for job in run_jobs(work)} == {"image 1, PA", "image 2, PA"}


def test_frontal_and_lateral_of_two_series_are_one_case(tmp_path: Path) -> None:
    lateral, frontal = of_study(radiograph(view="LL"), "1.2.3"), of_study(radiograph(view="PA"), "1.2.3")
    with imaging(tmp_path) as (work, engine, writer):
        work.receive([lateral, frontal])
        work.settle()
        (job,) = run_jobs(work)
        (case,), (result,) = engine.cases, writer.results
        said = {item.series_instance_uid: item for item in work.store.jobs.find() if not item.route}
    assert job.state is JobState.DONE, job.reason
    assert job.sop_instance_uids == (frontal.SOPInstanceUID, lateral.SOPInstanceUID)
    assert [image.view_position for image in case.images] == ["PA", "LL"]
    assert case.priors == 0
    assert isinstance(result.grid, Raster)
    assert len(result.source_paths) == 2
    assert set(said) == {lateral.SeriesInstanceUID, frontal.SeriesInstanceUID}
    assert {item.code for item in said.values()} == {PART_OF_STUDY}
    assert all("route 'chest'" in item.reason for item in said.values())


def test_the_order_of_views_is_also_read_from_their_codes(tmp_path: Path) -> None:
    lateral, frontal = (of_study(radiograph(number=n), "1.2.3") for n in (1, 2))
    for ds, value in ((lateral, "399173006"), (frontal, "272479007")):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", "a view"
        ds.ViewCodeSequence = [code]
        del ds.ViewPosition
    with imaging(tmp_path) as (work, engine, _):
        work.receive([lateral, frontal])
        work.settle()
    assert [image.view_position for image in engine.cases[0].images] == ["PA", "LL"]


def test_nothing_begins_while_a_series_of_the_study_still_arrives(tmp_path: Path) -> None:
    first, second = of_study(radiograph(), "1.2.3"), of_study(radiograph(view="LL"), "1.2.3")
    with imaging(tmp_path) as (work, engine, _):
        work.receive([first])
        work.clock.sleep(8)
        work.receive([second])
        work.settle(quiet_s=5)
        assert (run_jobs(work), engine.cases) == ([], [])
        work.settle(quiet_s=8)
        (job,) = run_jobs(work)
    assert len(job.sop_instance_uids) == 2


def test_a_later_image_makes_a_new_generation(tmp_path: Path) -> None:
    with imaging(tmp_path) as (work, engine, writer):
        work.receive([of_study(radiograph(), "1.2.3")])
        work.settle()
        work.receive([of_study(radiograph(view="LL"), "1.2.3")])
        work.settle()
        first, second = run_jobs(work)
        assert (second.generation, second.predecessor) == (2, first.job_id)
        assert [len(case.images) for case in engine.cases] == [1, 2]
        assert writer.results[1].predecessors == work.store.jobs.objects(first.job_id)


def test_the_same_study_is_the_same_job_whatever_the_order(tmp_path: Path) -> None:
    images = [of_study(radiograph(view=view), "1.2.3") for view in ("PA", "LL")]
    found: list[str] = []
    for order in (images, images[::-1]):
        with imaging(tmp_path / str(len(found))) as (work, _, _):
            for image in order:
                work.receive([image])
            work.settle()
            found.append(run_jobs(work)[0].job_id)
    assert found[0] == found[1]


def test_what_is_no_single_image_stays_out_of_the_study(tmp_path: Path) -> None:
    volume = [of_study(ds, "1.2.3", series="1.5") for ds in ct_series(3)]
    with imaging(tmp_path, replace(STUDY, modality=())) as (work, engine, _):
        work.receive([*volume, of_study(radiograph(), "1.2.3"), of_study(cine(), "1.2.3")])
        work.settle()
        assert len(run_jobs(work)) == 1
        codes = {item.series_instance_uid: item.code for item in work.store.jobs.find() if not item.route}
    assert len(engine.cases[0].images) == 1
    assert sorted(codes.values()) == ["no-route", "no-route", PART_OF_STUDY]


def test_priors_come_behind_newest_first_and_only_the_patients_own(tmp_path: Path) -> None:
    old, older = (of_study(radiograph(), generate_uid(), date=date) for date in ("20230101", "20220101"))
    later = of_study(radiograph(), generate_uid(), date="20250101")
    stranger = of_study(radiograph(), generate_uid(), date="20230601", patient="P2")
    now = [of_study(radiograph(view=view), "1.2.3") for view in ("LL", "PA")]
    with imaging(tmp_path, replace(STUDY, priors=1)) as (work, engine, _):
        work.receive([old, older, later, stranger])
        work.settle()
        engine.cases.clear()
        work.receive(now)
        work.settle()
        job = run_jobs(work)[-1]
        (case,) = engine.cases
    assert job.sop_instance_uids == (now[1].SOPInstanceUID, now[0].SOPInstanceUID, old.SOPInstanceUID)
    assert (len(case.images), case.priors) == (3, 1)
    assert job.study_instance_uid == "1.2.3"


def test_a_study_that_needs_too_much_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.planning.MOST_BYTES", 4000)
    with imaging(tmp_path) as (work, engine, _):
        work.receive([of_study(radiograph(), "1.2.3"), of_study(radiograph(view="LL"), "1.2.3")])
        work.settle()
        assert engine.cases == []
        assert "too-large" in {job.code for job in work.store.jobs.find()}


def test_a_plan_that_is_made_again_changes_nothing(tmp_path: Path) -> None:
    image = of_study(radiograph(), "1.2.3")
    with imaging(tmp_path) as (work, engine, _):
        work.receive([image])
        work.settle()
        before = {job.job_id: (job.state, job.attempt) for job in work.store.jobs.find()}
        work.store.series.thaw(image.SeriesInstanceUID)
        work.settle()
        assert {job.job_id: (job.state, job.attempt) for job in work.store.jobs.find()} == before
        assert len(engine.cases) == 1


class Killed(BaseException):
    """What ends a process ends a step without a word."""


def work_off(work: Work) -> int:
    """Run what is due; return how often a step was killed. A step that was killed is run again, as by another one."""
    killed = 0
    while (task := work.queue.take()) is not None:
        try:
            following = work.steps.run(task)
        except Killed:
            killed += 1
            following = work.steps.run(task)
        for item in following:
            work.queue.enqueue(item)
    return killed


@pytest.mark.parametrize("dies_in", ["engine", "writer"])
@pytest.mark.parametrize("unit", ["series", "study"])
def test_a_worker_that_is_killed_leaves_one_result(
    dies_in: str, unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = STUDY if unit == "study" else Route(name="echo", engine="threshold")
    sent = (
        [of_study(radiograph(), "1.2.3"), of_study(radiograph(view="LL"), "1.2.3")] if unit == "study" else [cine()]
    )
    with imaging(tmp_path, route) as (work, engine, writer):
        target, name = (engine, "run") if dies_in == "engine" else (writer, "write")
        whole, calls = getattr(target, name), []

        def dies_once(*args: object, **kwargs: object) -> object:
            calls.append(1)
            result = whole(*args, **kwargs)
            if len(calls) == 1:
                raise Killed
            return result

        monkeypatch.setattr(target, name, dies_once)
        work.receive(sent)
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        assert work_off(work) == 1
        (job,) = run_jobs(work)
        assert job.state is JobState.DONE, job.reason
        assert len(work.store.jobs.objects(job.job_id)) == 1
        assert len(work.destination.sent) == 1


def test_a_study_whose_store_fails_is_planned_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with imaging(tmp_path) as (work, engine, _):
        whole, calls = work.store.series.study, []

        def fails_once(study: str) -> tuple[StoredInstance, ...]:
            calls.append(study)
            if len(calls) == 1:
                raise StorageError
            return whole(study)

        monkeypatch.setattr(type(work.store.series), "study", lambda self, study: fails_once(study))
        work.receive([of_study(radiograph(), "1.2.3")])
        work.settle()
        assert engine.cases == []
        work.settle(quiet_s=3600)
        assert [job.state for job in run_jobs(work)] == [JobState.DONE]


def test_a_study_that_cannot_be_planned_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    with imaging(tmp_path) as (work, _engine, _writer):
        work.receive([of_study(radiograph(), generate_uid())])
        with monkeypatch.context() as patch:
            patch.setattr(type(work.store.series), "study", broken)
            work.settle()
        (said,) = work.store.jobs.find()
        assert (said.state, said.code) == (JobState.NOT_RUN, "internal-error")
        assert "voxgate jobs retry" in said.reason
        work.store.series.thaw(said.series_instance_uid)
        work.settle()
        (job,) = run_jobs(work)
        assert job.state is JobState.DONE
        assert "internal-error" not in {item.code for item in work.store.jobs.find()}


def test_a_study_names_the_refused_copies_of_all_its_series(tmp_path: Path) -> None:
    study = generate_uid()
    with imaging(tmp_path) as (work, _engine, _writer):
        frontal, lateral = of_study(radiograph(seed=1), study), of_study(radiograph(seed=2, view="LL"), study)
        other = of_study(radiograph(seed=3, view="LL"), study, series=str(lateral.SeriesInstanceUID))
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = lateral.SOPInstanceUID
        work.receive([frontal, lateral])
        work.receive([other])
        work.settle()
        (job,) = run_jobs(work)
    assert job.state is JobState.DONE
    assert "Conflicting copies: 1 instance(s)" in job.reason


def test_no_series_of_a_study_goes_before_the_study_has_its_result(tmp_path: Path) -> None:
    study = generate_uid()
    with imaging(tmp_path) as (work, engine, _writer):
        engine.fail_with = EngineFailed("It broke.")
        work.receive([of_study(radiograph(seed=1), study), of_study(radiograph(seed=2, view="LL"), study)])
        work.settle()
        (job,) = run_jobs(work)
        assert job.state is JobState.FAILED
        work.keep_for(days=1.0)
        assert work.watch.remove_old_series() == 0
        assert len(work.store.series.instances_by_uid(job.sop_instance_uids)) == 2
