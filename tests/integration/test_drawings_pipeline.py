"""Received drawings become jobs on the images that they are about, or a stated reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from drawn import (
    in_patient,
    presentation,
    rectangle,
    referenced,
    report,
    scoord,
    scoord3d,
    segmentation,
    structure_set,
)
from enhanced import enhanced
from factories import ct_series, phases, two_phases
from pointing import pointing, settle
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from working import MANIFEST, OneEngine, Work, working

from domain.errors import DeliveryError
from domain.job import Job, JobState
from pipeline.rules import DrawingRule, Route


def sr(series: Sequence[Dataset], k: int = 1, **more: Any) -> Dataset:
    """Return a report with a box on slice ``k``."""
    return report(series, [scoord(series[k], "POLYLINE", rectangle(3, 4, 9, 10))], **more)


def jobs(work: Work, *, drawn: bool = True) -> list[Job]:
    """Return the jobs of drawings, or the statements; oldest first."""
    return [job for job in reversed(work.store.jobs.find()) if bool(job.drawing) is drawn]


def statement(work: Work, ds: Dataset) -> Job:
    """Return the one statement about a drawing's series."""
    (found,) = work.store.jobs.find(series_instance_uid=str(ds.SeriesInstanceUID))
    return found


def test_a_drawing_becomes_a_job_on_its_images_and_the_result_is_written_and_sent(tmp_path: Path) -> None:
    series = ct_series(4)
    with pointing(tmp_path) as (work, engine):
        work.receive(series)
        settle(work)
        (none,) = work.store.jobs.find()
        assert (none.state, none.code) == (JobState.NOT_RUN, "no-route")
        assert "it waits for a drawing on the series" in none.reason
        ds = sr(series)
        work.receive([ds], sender="READER")
        settle(work)
        (job,) = jobs(work)
        assert (job.state, job.series_instance_uid) == (JobState.DONE, series[0].SeriesInstanceUID)
        (prompt,) = engine.prompts
        assert np.array_equal(prompt.objects[0].boxes[0].corners, ((1, 3.5, 2.5), (1, 9.5, 8.5)))
        assert prompt.drawing is not None
        assert prompt.drawing.sop_instance_uid == job.drawing == ds.SOPInstanceUID
        kinds = {pydicom.dcmread(path).Modality for path in work.destination.sent}
        assert kinds == {"SEG", "SR"}
        said = statement(work, ds)
        assert (said.state, said.code) == (JobState.NOT_RUN, "drawing")
        assert job.job_id[:12] in said.reason
        # What was said of the images before the drawing came is no longer true, and is not said any more.
        assert [item.job_id for item in work.store.jobs.find(series_instance_uid=job.series_instance_uid)] == [
            job.job_id
        ]


def test_the_same_drawing_again_and_again_is_one_job(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    with pointing(tmp_path) as (work, engine):
        for _ in range(3):
            work.receive([*series, ds])
            settle(work)
        work.store.series.thaw(str(series[0].SeriesInstanceUID))
        work.store.series.thaw(str(ds.SeriesInstanceUID))
        settle(work)
        assert len(engine.prompts) == len(jobs(work)) == len(jobs(work, drawn=False)) == 1


def test_no_route_that_opts_in_leaves_things_as_they_were(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    with working(tmp_path) as work:
        work.receive([*series, ds])
        settle(work)
        assert statement(work, ds).code == "not-an-image"


def test_own_results_never_prompt(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    ds.Manufacturer = "Voxgate"
    with pointing(tmp_path) as (work, engine):
        work.receive([*series, ds])
        settle(work)
        assert statement(work, ds).code == "own-result"
        assert not engine.prompts


def test_every_kind_of_drawing_starts_a_job(tmp_path: Path) -> None:
    series = ct_series(4)
    image, corners = series[2], rectangle(3, 4, 9, 10)
    mask = np.zeros((1, 4, 16, 20), bool)
    mask[0, 2, 4:10, 3:9] = True
    frame_only = report(series, [scoord3d(image, "POLYGON", in_patient(image, corners))])
    del frame_only.CurrentRequestedProcedureEvidenceSequence
    drawings = [
        sr(series, 2),
        frame_only,
        presentation(series, image, "POLYLINE", corners),
        structure_set(series, {"GTV": [in_patient(image, corners)]}),
        segmentation(series, mask),
    ]
    with pointing(tmp_path) as (work, engine):
        work.receive(series)
        settle(work)
        for ds in drawings:
            work.receive([ds])
            settle(work)
            assert statement(work, ds).code == "drawing", statement(work, ds).reason
        assert [job.state for job in jobs(work)] == [JobState.DONE] * 5
        boxes = [prompt.objects[0].boxes[0].corners for prompt in engine.prompts if prompt.objects[0].boxes]
        assert np.allclose(boxes, [((2, 3.5, 2.5), (2, 9.5, 8.5))] * 4, atol=1e-4)
        (seed,) = engine.prompts[-1].objects[0].masks
        assert np.array_equal(seed.pixels, mask[0, 2])


def test_a_report_that_refers_to_a_segmentation_uses_its_mask(tmp_path: Path) -> None:
    series = ct_series(4)
    mask = np.zeros((1, 4, 16, 20), bool)
    mask[0, 1, 4:10, 3:9] = True
    seg = segmentation(series, mask)
    ds = report(series, [referenced(seg)], identifiers=["L1"])
    with pointing(tmp_path, DrawingRule(names=("L1",))) as (work, engine):
        work.receive([*series, ds])
        settle(work)
        assert statement(work, ds).code == "waiting"
        assert "segmentation" in statement(work, ds).reason
        work.receive([seg])
        work.settle(quiet_s=40)
        work.settle(quiet_s=40)
        assert statement(work, ds).code == "drawing"
        (prompt,) = engine.prompts
        assert (prompt.objects[0].masks[0].slice, prompt.objects[0].tracking_identifier) == (1, "L1")


def test_a_drawing_waits_for_its_images_and_then_runs(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    with pointing(tmp_path) as (work, engine):
        work.receive([ds])
        settle(work)
        said = statement(work, ds)
        assert (said.code, said.state) == ("waiting", JobState.NOT_RUN)
        assert "No image that it is drawn on has come. It waits for them, at most 3600 s." in said.reason
        work.receive(series)
        for _ in range(4):
            work.settle(quiet_s=31)
        assert statement(work, ds).code == "drawing"
        assert len(engine.prompts) == 1


def test_after_the_limit_it_says_why_and_runs_when_the_images_come_after_all(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    with pointing(tmp_path) as (work, engine):
        work.receive([ds])
        settle(work)
        work.settle(quiet_s=3700)
        said = statement(work, ds)
        assert said.code == "images-missing"
        assert "It has waited 3600 s" in said.reason
        assert not work.queue.waiting
        work.receive(series)
        settle(work)
        assert statement(work, ds).code == "drawing"
        assert len(engine.prompts) == 1


def test_an_edited_drawing_supersedes_the_earlier_one(tmp_path: Path) -> None:
    series, uid = ct_series(4), generate_uid()
    before = sr(series, uids=[uid])
    after = report(series, [scoord(series[1], "POLYLINE", rectangle(3, 4, 10, 11))], uids=[uid], ContentTime="120500")
    another = sr(series, 2)
    with pointing(tmp_path) as (work, engine):
        for received in ([*series, before], [another], [after]):
            work.receive(received)
            settle(work)
        first, second, third = jobs(work)
        assert (third.generation, third.predecessor) == (2, first.job_id)
        assert (second.generation, second.predecessor) == (1, None)
        assert len(engine.prompts) == 3
        # An earlier version that comes late changes nothing
        late = sr(series, uids=[uid], ContentTime="115500")
        work.receive([late])
        settle(work)
        assert statement(work, late).code == "superseded"
        assert len(jobs(work)) == 3


def test_a_job_that_has_not_begun_is_withdrawn_when_its_drawing_is_edited(tmp_path: Path) -> None:
    series, uid = ct_series(4), generate_uid()
    with pointing(tmp_path) as (work, engine):
        work.receive(series)
        settle(work)
        work.receive([sr(series, uids=[uid])])
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        while (task := work.queue.take()) is not None:
            if task.step == "plan":
                for following in work.steps.run(task):
                    work.queue.enqueue(following)
            else:
                held = task
        work.queue.waiting.append((work.clock(), held))
        work.receive([sr(series, 2, uids=[uid], ContentTime="130000")])
        settle(work)
        first, second = jobs(work)
        assert (first.state, first.code) == (JobState.CANCELLED, "superseded")
        assert (second.state, second.predecessor) == (JobState.DONE, None)
        assert len(engine.prompts) == 1


@pytest.mark.parametrize("images_first", [True, False])
def test_of_two_versions_in_one_series_that_come_together_only_the_newer_is_used(
    tmp_path: Path, images_first: bool
) -> None:
    series = ct_series(4)
    older, newer = sr(series), sr(series, k=2)
    newer.SeriesInstanceUID = older.SeriesInstanceUID
    older.ContentTime, newer.ContentTime = "100000", "100500"
    for drawing in (older, newer):
        drawing.ContentDate = "20260101"
    with pointing(tmp_path) as (work, engine):
        for received in [series, [newer, older]] if images_first else [[newer, older], series]:
            work.receive(received)
            settle(work)
        work.clock.sleep(60)
        settle(work)
        done = [job for job in jobs(work) if job.state is JobState.DONE]
        assert [job.drawing for job in done] == [newer.SOPInstanceUID]
        assert len(engine.prompts) == 1
        said = {job.sop_instance_uids[0]: job.code for job in jobs(work, drawn=False)}
        assert said == {older.SOPInstanceUID: "superseded", newer.SOPInstanceUID: "drawing"}


def test_a_plan_that_was_killed_before_it_stood_back_does_so_when_it_is_made_again(tmp_path: Path) -> None:
    series, uid = ct_series(4), generate_uid()
    older, newer = sr(series, uids=[uid], ContentTime="100000"), sr(series, uids=[uid], ContentTime="100500")

    def plan(work: Work) -> None:
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        while (task := work.queue.take()) is not None:
            work.steps.run(task)

    with pointing(tmp_path) as (work, _engine):
        for received in (series, [older], [newer]):
            work.receive(received)
            plan(work)
        withdrawn, stays = jobs(work)
        assert (withdrawn.state, stays.state) == (JobState.CANCELLED, JobState.QUEUED)
        # Both were planned at the same time: the newer one had looked when the older one's job was recorded
        work.store.jobs.update(withdrawn.job_id, state=JobState.QUEUED, attempt=1, code="", reason="")
        work.store.series.thaw(older.SeriesInstanceUID)
        plan(work)
        assert [job.state for job in jobs(work)] == [JobState.CANCELLED, JobState.QUEUED]
        assert statement(work, older).code == "superseded"


def test_a_series_that_grows_has_its_drawing_run_again_on_all_of_it(tmp_path: Path) -> None:
    series = ct_series(6)
    ds = sr(series)
    with pointing(tmp_path) as (work, _):
        work.receive([*series[:4], ds])
        settle(work)
        work.receive(series[4:])
        settle(work)
        first, second = jobs(work)
        assert (len(first.sop_instance_uids), len(second.sop_instance_uids)) == (4, 6)
        assert (second.state, second.predecessor) == (JobState.DONE, first.job_id)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (DrawingRule(calling_ae_titles=("READER",)), "calling AE title of the drawing is not one"),
        (DrawingRule(names=("GTV*",)), "no object drawn has a name or a code of the route's"),
        (DrawingRule(finding_codes=("SCT:1",)), "no object drawn has a name or a code of the route's"),
    ],
)
def test_a_route_takes_only_the_drawings_that_it_names(tmp_path: Path, rule: DrawingRule, said: str) -> None:
    series = ct_series(4)
    ds = sr(series)
    with pointing(tmp_path, rule) as (work, _):
        work.receive([*series, ds])
        settle(work)
        found = statement(work, ds)
        assert (found.code, said in found.reason) == ("drawing-refused", True)
        assert not jobs(work)


def test_of_a_structure_set_the_route_takes_the_rois_that_it_names(tmp_path: Path) -> None:
    series = ct_series(4)
    contour = in_patient(series[1], rectangle(3, 4, 9, 10))
    ds = structure_set(series, {"GTV-1": [contour], "Heart": [contour], "gtv n": [contour]})
    with pointing(tmp_path, DrawingRule(names=("GTV*",))) as (work, engine):
        work.receive([*series, ds])
        settle(work)
        assert [item.label for item in engine.prompts[0].objects] == ["GTV-1", "gtv n"]


def test_a_drawing_with_a_finding_of_the_routes_is_taken_with_its_tracking(tmp_path: Path) -> None:
    series, uid = ct_series(4), generate_uid()
    ds = sr(series, uids=[uid], identifiers=["L7"])
    with pointing(tmp_path, DrawingRule(finding_codes=("SCT:108369006",), names=("l7",))) as (work, engine):
        work.receive([*series, ds])
        settle(work)
        (item,) = engine.prompts[0].objects
        assert (item.tracking_identifier, item.tracking_uid) == ("L7", uid)


def test_images_that_are_no_volume_and_engines_without_prompts_are_named(tmp_path: Path) -> None:
    series = ct_series(5)
    with pointing(tmp_path / "gap") as (work, _):
        ds = sr(series)
        work.receive([*series[:3], series[4], ds])
        settle(work)
        assert "are no volume: 1 slice" in statement(work, ds).reason
    routes = (Route(name="follow", engine="threshold", prompts_from_dicom=DrawingRule()),)
    with working(tmp_path / "none", routes=routes, engines=OneEngine(manifest_now=replace(MANIFEST))) as work:
        ds = sr(series)
        work.receive([*series, ds])
        settle(work)
        assert "its engine takes no prompts" in statement(work, ds).reason


def test_a_drawing_that_is_gone_when_its_job_runs_is_told(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    with pointing(tmp_path) as (work, _):
        work.receive([*series, ds])
        settle(work)
        (job,) = jobs(work)
        work.store.series.remove_series(str(ds.SeriesInstanceUID))
        work.store.jobs.update(job.job_id, state=JobState.QUEUED, attempt=2)
        settle(work)
        (job,) = jobs(work)
        assert (job.state, job.code) == (JobState.FAILED, "drawing-refused")
        assert "send it again" in job.reason


def test_a_segmentation_that_is_gone_when_its_reports_job_runs_is_told(tmp_path: Path) -> None:
    series = ct_series(4)
    mask = np.zeros((1, 4, 16, 20), bool)
    mask[0, 1, 4:10, 3:9] = True
    seg = segmentation(series, mask)
    ds = report(series, [referenced(seg)], identifiers=["L1"])
    with pointing(tmp_path, DrawingRule(names=("L1",))) as (work, _):
        work.receive([*series, seg, ds])
        settle(work)
        (job,) = jobs(work)
        work.store.series.remove_series(str(seg.SeriesInstanceUID))
        work.store.jobs.update(job.job_id, state=JobState.QUEUED, attempt=2)
        settle(work)
        again = work.store.jobs.get(job.job_id)
        assert again is not None
        assert (again.state, again.code) == (JobState.FAILED, "drawing-refused")
        assert "no longer stored" in again.reason


def test_a_damaged_drawing_is_a_reason_and_no_fault(tmp_path: Path) -> None:
    series = ct_series(4)
    ds = sr(series)
    ds.ContentSequence[0].ContentSequence[0].ContentSequence[-1].GraphicType = "SPLINE"
    with pointing(tmp_path) as (work, _):
        work.receive([*series, ds])
        settle(work)
        assert statement(work, ds).reason.startswith("It is no prompt. Nothing is drawn in it")


def test_the_second_phase_of_a_series_is_not_taken_for_the_first(tmp_path: Path) -> None:
    series = two_phases()
    late = series[4:]
    with pointing(tmp_path) as (work, _):
        ds = sr(late)
        work.receive([*series, ds])
        settle(work)
        (job,) = jobs(work)
        assert set(job.sop_instance_uids) == {image.SOPInstanceUID for image in late}


def test_what_is_said_of_many_stacks_stays_when_one_of_them_is_drawn_on(tmp_path: Path) -> None:
    series = phases(10)
    with pointing(tmp_path) as (work, engine):
        work.receive(series)
        settle(work)
        (before,) = jobs(work, drawn=False)
        assert before.stack.startswith("10 stacks, ")
        work.receive([sr(series)], sender="READER")
        settle(work)
        assert len(engine.prompts) == len(jobs(work)) == 1
        assert before.job_id in {job.job_id for job in jobs(work, drawn=False)}


def test_of_an_enhanced_image_only_the_stack_that_is_drawn_on_is_answered(tmp_path: Path) -> None:
    two = enhanced(two_phases(), times=[1, 1, 1, 1, 2, 2, 2, 2])
    region = scoord(two, "POLYLINE", rectangle(3, 4, 9, 10))
    region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 2
    ds = report([two], [region])
    with pointing(tmp_path) as (work, engine):
        for _ in range(2):
            work.receive([two, ds])
            settle(work)
            work.store.series.thaw(str(two.SeriesInstanceUID))
        assert len(engine.prompts) == 1
        (left,) = (job for job in jobs(work, drawn=False) if job.code == "no-route")
        assert left.frame_numbers == (5, 6, 7, 8)


def test_no_drawing_goes_before_the_result_that_it_asked_for_has_arrived(tmp_path: Path) -> None:
    series = ct_series(4)
    with pointing(tmp_path) as (work, _engine):
        work.destination.fail_with = DeliveryError("It is down.")
        work.receive([*series, sr(series)])
        settle(work)
        (job,) = jobs(work)
        assert job.state is JobState.FAILED
        work.keep_for(days=1.0)
        assert work.watch.remove_old_series() == 0
        assert work.store.series.instances_by_uid((job.drawing,))
