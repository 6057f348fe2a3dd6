"""Every decision of the pipeline, with the real store, planner, steps and writers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from enhanced import enhanced
from factories import copied, ct_series
from pydicom.uid import generate_uid
from working import MANIFEST, OneEngine, RecordingDestination, working

from domain.errors import EngineUnavailable, NotApplicable, PeerRefused, PeerUnreachable
from domain.instance import Disposition
from domain.job import DeliveryState, JobState
from gateway.operator import cancel, retry
from pipeline.rules import Route


def body(slices: int = 6) -> list[pydicom.Dataset]:
    """Return a series with a bright block inside air."""
    voxels = np.full((slices, 16, 20), -1000, np.int16)
    voxels[1:-1, 4:12, 5:15] = 40
    return ct_series(slices, voxels=voxels)


def test_a_series_becomes_one_seg_and_one_sr_at_the_destination(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.reason) == (JobState.DONE, "")
        assert [pydicom.dcmread(path).Modality for path in work.destination.sent] == ["SEG", "SR"]
        assert {d.state for d in work.store.jobs.deliveries(job.job_id)} == {DeliveryState.STORED}
        assert set(job.timings_s) == {"assemble", "engine", "encode", "verify", "deliver"}
        assert not list((work.store.results / job.job_id).glob("findings*"))


def test_nothing_begins_while_instances_arrive(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        for dataset in series:
            work.receive([dataset])
            work.settle(quiet_s=5)
        assert work.engines.only.runs == 0
        work.settle()
        assert work.engines.only.runs == 1


def test_an_announced_number_starts_the_work_at_once(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.store.series.expect(series[0].SeriesInstanceUID, len(series))
        work.receive(series)
        work.settle(quiet_s=0)
        assert work.engines.only.runs == 1


def test_sending_again_gives_no_second_result(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        work.settle()
        outcomes = work.receive(series)
        assert {outcome.disposition for outcome in outcomes} == {Disposition.DUPLICATE}
        work.settle()
        assert (work.engines.only.runs, len(work.destination.sent)) == (1, 2)


def test_late_slices_make_a_new_generation_whose_sr_names_the_predecessor(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body(8)
        work.receive(series[:6])
        work.settle()
        work.receive(series[6:])
        work.settle()
        second, first = work.store.jobs.find()
        assert (first.generation, second.generation) == (1, 2)
        assert second.predecessor == first.job_id
        old, new = (pydicom.dcmread(path) for path in work.destination.sent if path.name.startswith("sr"))
        named = {
            instance.ReferencedSOPInstanceUID
            for study in new.PredecessorDocumentsSequence
            for one in study.ReferencedSeriesSequence
            for instance in one.ReferencedSOPSequence
        }
        assert old.SOPInstanceUID in named
        assert "PredecessorDocumentsSequence" not in old


def test_a_job_that_has_not_begun_is_replaced_by_the_larger_set(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = EngineUnavailable()
        series = body(8)
        work.receive(series[:6])
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        work.steps.run(plan)  # planned; killed before anything ran
        work.receive(series[6:])
        work.engines.only.fail_with = None
        work.settle()
        second, first = work.store.jobs.find()
        assert (first.state, first.code) == (JobState.CANCELLED, "superseded")
        assert (second.state, second.generation) == (JobState.DONE, 1)


def test_a_gap_is_refused_by_name_and_healed_by_the_late_slice(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body(6)
        work.receive([dataset for dataset in series if dataset.InstanceNumber != 4])
        work.settle()
        (refused,) = work.store.jobs.find()
        assert (refused.state, refused.code) == (JobState.NOT_RUN, "missing-slices")
        assert refused.reason
        work.receive([dataset for dataset in series if dataset.InstanceNumber == 4])
        work.settle()
        (healed,) = work.store.jobs.find()
        assert healed.state is JobState.DONE


def test_a_geometric_refusal_takes_precedence_over_a_route(tmp_path: Path) -> None:
    with working(tmp_path, routes=[Route(name="mr", engine="threshold", modality=("MR",))]) as work:
        work.receive([dataset for dataset in body(6) if dataset.InstanceNumber != 4])
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.code == "missing-slices"


def test_a_series_that_no_route_takes_says_why(tmp_path: Path) -> None:
    routes = [
        Route(name="mr", engine="threshold", modality=("MR",)),
        Route(name="many", engine="threshold", min_instances=50),
    ]
    with working(tmp_path, routes=routes) as work:
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.NOT_RUN, "no-route")
        assert "'mr'" in job.reason
        assert "'many'" in job.reason


def test_what_the_engine_does_not_apply_to_is_an_answer(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = NotApplicable("No lungs in this series.")
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.reason) == (JobState.NOT_APPLICABLE, "No lungs in this series.")
        assert work.destination.sent == []


def test_an_engine_that_breaks_ends_the_job_and_can_be_retried(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = ZeroDivisionError("CANARY^PHI")
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.FAILED, "engine-failed")
        assert "CANARY" not in job.reason
        work.engines.only.fail_with = None
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE


def test_an_engine_that_is_unavailable_is_tried_again_later(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.only.fail_with = EngineUnavailable()
        work.receive(body())
        work.settle()
        assert work.engines.only.runs == 1
        work.settle(quiet_s=16)
        assert work.engines.only.runs == 2
        work.engines.only.fail_with = None
        work.settle(quiet_s=31)
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE


def test_a_destination_that_is_down_three_times_gets_the_result_once(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerUnreachable()
        work.receive(body())
        work.settle()
        work.settle(quiet_s=16)
        work.settle(quiet_s=31)
        assert work.destination.attempts == 3
        work.destination.fail_with = None
        work.settle(quiet_s=61)
        work.settle(quiet_s=4000)
        (job,) = work.store.jobs.find()
        assert (job.state, len(work.destination.sent)) == (JobState.DONE, 2)
        assert {d.attempts for d in work.store.jobs.deliveries(job.job_id)} == {4}


def test_a_refusal_for_good_is_a_dead_letter_that_can_be_sent_again(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerRefused("status A900")
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.FAILED, "not-delivered")
        assert "A900" in job.reason
        assert work.destination.attempts == 1
        work.destination.fail_with = None
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE
        assert work.engines.only.runs == 1  # what was written is sent, nothing is computed again


def test_one_dead_destination_does_not_hold_up_the_other(tmp_path: Path) -> None:
    dead, alive = RecordingDestination(name="dead", fail_with=PeerUnreachable()), RecordingDestination(name="alive")
    with working(tmp_path, destinations={"dead": dead, "alive": alive}) as work:
        work.receive(body())
        work.settle()
        assert len(alive.sent) == 2
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DELIVERING


def test_a_cancelled_job_goes_no_further(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerUnreachable()
        work.receive(body())
        work.settle()
        (job,) = work.store.jobs.find()
        cancel(work.store.jobs, job.job_id)
        work.destination.fail_with = None
        work.settle(quiet_s=4000)
        (job,) = work.store.jobs.find()
        assert (job.state, work.destination.sent) == (JobState.CANCELLED, [])


def test_same_uid_with_other_content_is_refused_and_the_job_says_so(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        work.settle()
        changed = series[2].copy()
        changed.PixelData = bytes(len(changed.PixelData))
        (outcome,) = work.receive([changed])
        assert outcome.disposition is Disposition.REFUSED
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE
        assert "other content" in job.reason
        assert work.engines.only.runs == 1


def test_images_that_came_twice_have_a_statement_and_the_job_says_so(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        again = copied(series[2:4], first_number=50)
        work.receive([*series, *again])
        work.settle()
        done, repeated = sorted(work.store.jobs.find(), key=lambda job: job.state)
        assert (done.state, repeated.state, repeated.code) == (JobState.DONE, JobState.NOT_RUN, "repeated-images")
        assert done.reason.startswith("Repeated images: 2 image(s) came twice under different SOP Instance UIDs.")
        assert "InstanceNumber 50 to 51" in repeated.reason
        assert set(repeated.sop_instance_uids) == {ds.SOPInstanceUID for ds in again}
        changed = series[2].copy()
        changed.PixelData = bytes(len(changed.PixelData))
        work.receive([changed])
        work.settle()
        done, _ = sorted(work.store.jobs.find(), key=lambda job: job.state)
        assert (done.reason.count("Repeated images:"), done.reason.count("Conflicting copies:")) == (1, 1)


def test_an_image_that_came_twice_is_no_longer_stated_when_the_set_has_another_reason(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive([*series, *copied(series[2:3], first_number=50)])
        work.settle()
        other = copied(series[2:3], first_number=51)
        other[0].PixelData = bytes(len(other[0].PixelData))
        work.receive(other)
        work.settle()
        stated = {job.code for job in work.store.jobs.find(state=JobState.NOT_RUN)}
        assert stated == {"duplicate-position", "repeated-images"}


def test_a_series_of_which_every_instance_conflicts_has_a_fate(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        other = [dataset.copy() for dataset in series]
        for dataset in other:
            dataset.SeriesInstanceUID = "1.2.3"
        work.receive(other)
        work.settle()
        (job,) = work.store.jobs.find(series_instance_uid="1.2.3")
        assert (job.state, job.code) == (JobState.NOT_RUN, "conflict")


def test_own_results_that_come_back_are_never_analysed(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.receive(body())
        work.settle()
        work.receive([pydicom.dcmread(path) for path in work.destination.sent])
        work.settle()
        codes = sorted(job.code for job in work.store.jobs.find())
        assert codes == ["", "own-result", "own-result"]
        assert work.engines.only.runs == 1


def test_a_newer_engine_runs_again_only_when_it_is_asked_to(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        series = body()
        work.receive(series)
        work.settle()
    newer = OneEngine(manifest_now=replace(MANIFEST, version="2.0"))
    with working(tmp_path, engines=newer) as work:
        work.settle()
        assert newer.only.runs == 0
        work.store.series.thaw(series[0].SeriesInstanceUID)
        work.settle()
        assert newer.only.runs == 1
        second, first = work.store.jobs.find()
        assert (second.engine_version, first.engine_version) == ("2.0", "1.0")
        assert second.predecessor == first.job_id


def test_a_series_that_could_not_be_planned_says_so_and_is_planned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("CANARY^PHI")

    with working(tmp_path) as work:
        work.receive(body())
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.planning.group_stored", broken)
            work.settle()
        (job,) = work.store.jobs.find()
        assert (job.state, job.code) == (JobState.NOT_RUN, "internal-error")
        assert "CANARY" not in job.reason
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE


def test_a_refusal_takes_the_place_of_an_earlier_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with working(tmp_path) as work:
        work.receive([dataset for dataset in body(6) if dataset.InstanceNumber != 4])
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.planning.group_stored", broken)
            work.settle()
        (job,) = work.store.jobs.find()
        retry(work.store.jobs, work.store.series, job.job_id)
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.code == "missing-slices"


def test_an_engine_replaced_before_it_began_makes_a_job_of_its_own_version(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.receive(body())
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        for task in work.steps.run(plan):
            work.queue.enqueue(task)
        work.engines.manifest_now = replace(MANIFEST, version="2.0")
        work.settle(quiet_s=0)
        work.settle()
        second, first = work.store.jobs.find()
        assert (first.state, first.code, first.engine_version) == (JobState.CANCELLED, "superseded", "1.0")
        assert (second.state, second.engine_version) == (JobState.DONE, "2.0")


def test_stat_goes_first(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        routine, urgent = body(), body()
        for dataset in urgent:
            dataset.RequestAttributesSequence = []
            dataset.RequestedProcedurePriority = "STAT"
        work.receive(routine)
        work.receive(urgent)
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        for _ in range(2):
            plan = work.queue.take()
            assert plan is not None
            for task in work.steps.run(plan):
                work.queue.enqueue(task)
        first = work.queue.take()
        assert first is not None
        job = work.store.jobs.get(str(first.args[0]))
        assert job is not None
        assert job.series_instance_uid == urgent[0].SeriesInstanceUID


def test_a_job_that_the_engine_forgot_starts_again(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.destination.fail_with = PeerUnreachable()
        work.receive(body())
        work.settle()
        work.queue.waiting.clear()  # the engine's tables were lost
        work.destination.fail_with = None
        work.clock.now = datetime.now(UTC) + timedelta(minutes=5)  # the log stamps its rows with real time
        work.watch.restart_stranded_jobs()
        work.settle()
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE


def test_retention_removes_only_what_is_confirmed(tmp_path: Path) -> None:
    with working(tmp_path, retention_days=1) as work:
        work.receive(body())
        work.settle()
        undelivered = body()
        for dataset in undelivered:
            dataset.SOPInstanceUID = generate_uid()
        work.destination.fail_with = PeerUnreachable()
        work.receive(undelivered)
        work.settle()
        work.clock.sleep(2 * 86400)
        assert work.watch.remove_old_series() == 1
        assert work.store.series.instances(undelivered[0].SeriesInstanceUID)


@pytest.mark.parametrize("killed_after", range(1, 6))
def test_any_step_may_run_twice_without_a_second_result(tmp_path: Path, killed_after: int) -> None:
    """A step whose effect is done and whose record is lost runs again: at-least-once."""
    with working(tmp_path) as work:
        work.receive(body())
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        count = 0
        while (task := work.queue.take()) is not None:
            following = work.steps.run(task)
            count += 1
            if count == killed_after:
                following = work.steps.run(task)
            for item in following:
                work.queue.enqueue(item)
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE
        uids = [pydicom.dcmread(path).SOPInstanceUID for path in work.destination.sent]
        assert len(set(uids)) == 2


def test_each_stack_of_an_enhanced_image_has_its_own_results(tmp_path: Path) -> None:
    first, second = body(), [*body()]
    for frame in second:  # another place, so that the two sets of masks differ
        frame.PixelData = np.roll(frame.pixel_array, 3, axis=1).tobytes()
    image = enhanced([f for pair in zip(first, second, strict=True) for f in pair], times=[1, 2] * 6)
    with working(tmp_path) as work:
        work.receive([image])
        work.settle()
        jobs = sorted(work.store.jobs.find(), key=lambda job: job.stack)
        assert [job.stack for job in jobs] == ["axial, temporal position 1", "axial, temporal position 2"]
        assert [(job.state, job.reason) for job in jobs] == [(JobState.DONE, "")] * 2
        assert [job.frame_numbers for job in jobs] == [(1, 3, 5, 7, 9, 11), (2, 4, 6, 8, 10, 12)]
        segs = [pydicom.dcmread(path) for path in work.destination.sent if pydicom.dcmread(path).Modality == "SEG"]
        named = [
            {
                int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
                for group in seg.PerFrameFunctionalGroupsSequence
            }
            for seg in segs
        ]
        assert sorted(map(sorted, named)) == [[3, 5, 7, 9], [4, 6, 8, 10]]
        masks = {seg.PixelData for seg in segs}
        assert len(masks) == 2
