"""The first step: a series that is whole becomes jobs, and a stated reason where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat

from domain.instance import StoredInstance
from domain.job import Job, JobState
from domain.ports import JobLog, SeriesIndex
from domain.series import Stack
from pipeline.drawings import MISSING, SUPERSEDED, DrawingFate, DrawingPlans
from pipeline.planning import Planner, StackPlan
from pipeline.statements import not_run, nothing_kept
from pipeline.task import Task
from volume.frames import image_names, with_frames
from volume.numbers import listed

log = logging.getLogger(__name__)

_CONFLICTS = "Conflicting copies:"
_REPEATED = "Repeated images:"
REPEATED = "repeated-images"
"""Code of the statement about images that are in no stack, since they are there under a lower InstanceNumber."""


class PlanStep:
    """Plans series and keeps the job log's statements about them true."""

    def __init__(
        self,
        *,
        index: SeriesIndex,
        jobs: JobLog,
        planner: Planner,
        next_task: Callable[[Job], list[Task]],
        drawings: DrawingPlans,
    ) -> None:
        self._index = index
        self._jobs = jobs
        self._planner = planner
        self._next_task = next_task
        self._drawings = drawings

    def run(self, task: Task) -> list[Task]:
        """Plan the set of a series that had arrived at a revision; return one inference task a new job.

        A drawing that waits for its images has the series planned again after a while.
        """
        series_instance_uid, revision = str(task.args[0]), int(task.args[1])
        instances = self._index.instances(series_instance_uid, revision)
        drawn = [instance for instance in instances if self._drawings.takes(instance.header)]
        fates = [(instance, self._drawings.fate(instance)) for instance in drawn]
        following = self._planned(series_instance_uid, instances, fates) if instances else []
        if not instances:
            self._only_conflicts(series_instance_uid)
        waiting = [instance for instance, fate in fates if fate.waits]
        if waiting:
            tried = int(task.args[3]) if len(task.args) > 3 else 1
            args = (*task.args[:3], tried + 1)
            return [*following, replace(task, args=args, delay_s=self._drawings.delay_s(waiting))]
        # Last: a series whose plan got lost on the way is handed on again (``Watch.hand_on_complete_series``).
        self._index.freeze(series_instance_uid, revision)
        if instances and self._planner.study_routes:
            args = (instances[0].header.study_instance_uid, *task.args[:3], 1)
            following.append(Task(step="plan-study", args=args, queue="cpu", priority=1))
        return following

    def _planned(
        self,
        series_instance_uid: str,
        instances: Sequence[StoredInstance],
        fates: Sequence[tuple[StoredInstance, DrawingFate]],
    ) -> list[Task]:
        drawings = {instance.header.sop_instance_uid for instance, _ in fates}
        others = [instance for instance in instances if instance.header.sop_instance_uid not in drawings]
        plans = self._planner.plan(others, sender=self._index.sender(series_instance_uid)) if others else ()
        found = self._jobs.find(series_instance_uid=series_instance_uid)
        prompted = [job for job in found if job.drawing]
        earlier = [job for job in found if not job.drawing]
        # Many stacks may share one statement.
        jobs = {job.job_id: job for plan in plans for job in plan.jobs}
        planned = [with_predecessor(job, earlier) for job in jobs.values() if not _is_answered(job, prompted)]
        self._look_again(instances[0].header.study_instance_uid, others, prompted)
        planned += [_statement(instance, fate) for instance, fate in fates]
        repeated = _repeated(others, plans)
        known = {instance.header.sop_instance_uid for instance in instances}
        # A plan of a later revision may have been quicker: what it made is not this one's to withdraw.
        of_studies = {route.name for route in self._planner.study_routes}  # their step withdraws them
        outdated = [job for job in earlier if known.issuperset(job.sop_instance_uids) and job.route not in of_studies]
        self.withdraw(outdated, {job.job_id for job in (*planned, *repeated)})
        for job in repeated:
            self.record(job, "")
        note = self.note(series_instance_uid)
        for job in planned:
            self.record(job, note)
        planned += self._record_drawn(fates)
        queued = [self._jobs.get(job.job_id) for job in planned]
        log.info("series planned", extra={"instances": len(instances), "stacks": len(plans)})
        return [
            following
            for job in queued
            if job is not None and job.state is JobState.QUEUED
            for following in self._next_task(job)
        ]

    def _record_drawn(self, fates: Sequence[tuple[StoredInstance, DrawingFate]]) -> list[Job]:
        """Add the jobs that drawings start, in place of those of earlier versions; return them."""
        drawn = [job for _, fate in fates for job in fate.jobs]
        for job in drawn:
            self.record(job, self.note(job.series_instance_uid))
        kept = {job.job_id for job in drawn}
        for instance, fate in fates:
            self.withdraw(fate.outdated, kept)
            for statement in fate.answered:
                if statement.code == "no-route":
                    self._jobs.remove(statement.job_id)
            if fate.jobs:
                self._stand_back(instance, kept)
        return drawn

    def _stand_back(self, instance: StoredInstance, kept: set[str]) -> None:
        """Look once more for other versions of a drawing: those of this series, and those planned at the same time.

        Whoever looks last sees the others' jobs, and each can tell alone which of them stays.
        """
        now = self._drawings.fate(instance)
        if now.code == SUPERSEDED:
            self.withdraw(now.outdated, set())
            self.record(_statement(instance, now), "")
        else:
            self.withdraw(now.outdated, kept)

    def _look_again(self, study: str, images: Sequence[StoredInstance], prompted: Sequence[Job]) -> None:
        """Have drawings planned again whose images came late, or whose series has grown."""
        if not images:
            return
        here = images[0].header.series_instance_uid
        uids = {instance.header.sop_instance_uid for instance in images}
        grown = {job.drawing for job in prompted if uids > set(job.sop_instance_uids)}
        stated = self._jobs.find(study_instance_uid=study, state=JobState.NOT_RUN) if study else []
        late = {uid for job in stated if job.code == MISSING for uid in job.sop_instance_uids}
        for drawing in self._index.instances_by_uid(sorted(grown | late)):
            said = MISSING if drawing.header.sop_instance_uid in late else ""
            series = drawing.header.series_instance_uid  # drawings in the images' own series are planned with it
            if series != here and self._drawings.brings_news(drawing, here, said=said):
                self._index.thaw(series)

    def record(self, job: Job, note: str) -> None:
        """Add a job; where it is known, bring its statement up to date, and start it again where it was withdrawn."""
        if self._jobs.add(replace(job, reason=f"{job.reason} {note}".strip())):
            return
        known = self._jobs.get(job.job_id)
        if known is None or not known.state.is_final:
            return  # its end will say everything
        if known.state is JobState.CANCELLED and known.code == "superseded":
            self._jobs.update(job.job_id, state=JobState.QUEUED, attempt=known.attempt + 1, code="", reason="")
            return
        # A statement is replaced; how a job ended stays, with the newest note behind it.
        said = job if job.state is JobState.NOT_RUN else known
        reason = f"{_without_notes(said.reason)} {note}".strip()
        if (known.code, known.reason) != (said.code, reason):
            self._jobs.update(job.job_id, code=said.code, reason=reason)

    def _only_conflicts(self, series_instance_uid: str) -> None:
        """State the fate of a series of which every instance was refused as a conflicting copy."""
        note = self.note(series_instance_uid)
        if note:
            self.record(nothing_kept(series_instance_uid, note), "")

    def withdraw(self, earlier: Sequence[Job], kept: set[str]) -> None:
        """Replace statements about sets that have changed, and jobs on them that have not begun."""
        for job in earlier:
            if job.job_id in kept:
                continue
            if job.state is JobState.NOT_RUN:
                self._jobs.remove(job.job_id)
            elif job.state is JobState.QUEUED:
                reason = "The series or its routes changed before it began; another job replaces it."
                self._jobs.update(job.job_id, state=JobState.CANCELLED, code="superseded", reason=reason)

    def note_of(self, job: Job) -> str:
        """Return what a job must say about all series whose images it works on, see ``note``."""
        if job.route not in {route.name for route in self._planner.study_routes}:
            return self.note(job.series_instance_uid)
        instances = self._index.instances_by_uid(job.sop_instance_uids)
        return self.note(*dict.fromkeys(item.header.series_instance_uid for item in instances))

    def note(self, *series_instance_uids: str) -> str:
        """Return what a job must say about refused copies and repeated images; empty where there are none."""
        notes = []
        conflicts = sum(map(self._index.conflicts, series_instance_uids))
        if conflicts:
            notes.append(
                f"{_CONFLICTS} {conflicts} instance(s) came again with the same SOP Instance UID and other content. "
                "The first ones were used, the later ones refused and kept in quarantine."
            )
        stated = (self._jobs.find(series_instance_uid=uid, state=JobState.NOT_RUN) for uid in series_instance_uids)
        repeated = sum(len(job.sop_instance_uids) for jobs in stated for job in jobs if job.code == REPEATED)
        if repeated:
            notes.append(
                f"{_REPEATED} {repeated} image(s) came twice under different SOP Instance UIDs. Of each the one with "
                "the lower InstanceNumber was used."
            )
        return " ".join(notes)

    def state_fate(self, series_instance_uid: str, revision: int, code: str, reason: str) -> None:
        """Say of a series that is not planned why that is so; its plan replaces the statement."""
        instances = self._index.instances(series_instance_uid, revision)
        if instances:
            headers = tuple(instance.header for instance in instances)
            self.record(not_run(Stack(name="", headers=headers), code, reason), "")


def _statement(instance: StoredInstance, fate: DrawingFate) -> Job:
    """Return what the drawing's own series says of it."""
    return not_run(Stack(name="", headers=(instance.header,)), fate.code, fate.reason)


def _without_notes(reason: str) -> str:
    """Return a reason without what ``PlanStep.note`` said behind it."""
    for begin in (_CONFLICTS, _REPEATED):
        reason = reason.partition(begin)[0]
    return reason.strip()


def _repeated(instances: Sequence[StoredInstance], plans: Sequence[StackPlan]) -> list[Job]:
    """Return the statement about images that are in no stack: they are there once more (``volume.repeats``)."""
    used = {name for plan in plans for name in image_names(plan.stack.headers)}
    images = with_frames([instance.header for instance in instances])
    repeated = tuple(header for header in images if image_names([header])[0] not in used)
    if not repeated:
        return []
    reason = (
        f"Each of these images ({listed(repeated)}) is the same as another one of its series: equal pixels, position "
        "and acquisition, under another UID. The one with the lower InstanceNumber is used."
    )
    return [not_run(Stack(name="repeated images", headers=repeated), REPEATED, reason)]


def _is_answered(job: Job, prompted: Sequence[Job]) -> bool:
    """Tell whether a statement that nothing runs is untrue, as a drawing has started a job on the same images."""
    return job.code == "no-route" and any(_images_of(job) == _images_of(other) for other in prompted)


def _images_of(job: Job) -> set[tuple[str, int | None]]:
    """Return what a job is about: the stacks of an enhanced image are frames of the same instance."""
    return set(zip(job.sop_instance_uids, job.frame_numbers or repeat(None), strict=False))


def with_predecessor(job: Job, earlier: Sequence[Job]) -> Job:
    """Name the newest earlier job on the same route whose set overlaps: its SR becomes the predecessor document."""
    if not job.route:
        return job
    uids = set(job.sop_instance_uids)
    for other in earlier:  # newest first
        same = other.route == job.route and other.engine == job.engine and other.job_id != job.job_id
        has_begun = other.state is not JobState.QUEUED and other.code != "superseded"
        if same and has_begun and uids & set(other.sop_instance_uids):
            return replace(job, generation=other.generation + 1, predecessor=other.job_id)
    return job
