"""The step behind the plans of a study's series: when all are planned, their images become the study's jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date

from domain.instance import Header, StoredInstance
from domain.job import Job, JobState
from domain.ports import JobLog, PatientHistory, SeriesIndex
from pipeline.plan_step import PlanStep, with_predecessor
from pipeline.planning import Planner, view_order
from pipeline.rules import Route
from pipeline.task import Task
from volume.context import study_day

log = logging.getLogger(__name__)


class StudyStep:
    """Plans studies on the routes that work on them.

    It runs after every plan of a series; the one that finds all series of the study planned makes the jobs. Two that
    find it make the same ones.
    """

    def __init__(
        self,
        *,
        index: SeriesIndex,
        jobs: JobLog,
        planner: Planner,
        plans: PlanStep,
        next_task: Callable[[Job], list[Task]],
        history: PatientHistory | None,
    ) -> None:
        self._index = index
        self._jobs = jobs
        self._planner = planner
        self._plans = plans
        self._next_task = next_task
        self._history = history

    def run(self, task: Task) -> list[Task]:
        """Make the jobs of a study whose series have all been planned; return one inference task a new job."""
        study = str(task.args[0])
        if any(item.revision > item.frozen_revision for item in self._index.study_arrivals(study)):
            return []  # still arriving: that series' own plan comes back here
        instances = self._index.study(study)
        following = []
        for route in self._planner.study_routes:
            images = self._planner.images_of_study(route, instances, self._index.sender)
            earlier = [job for job in self._jobs.find(study_instance_uid=study) if job.route == route.name]
            made = [self._planner.study_job(route, images, self._priors(route, study, instances))] if images else []
            following += self._recorded(made, earlier)
        return following

    def _recorded(self, made: Sequence[Job], earlier: Sequence[Job]) -> list[Task]:
        self._plans.withdraw(earlier, {job.job_id for job in made})
        following = []
        for job in made:
            self._plans.record(with_predecessor(job, earlier), self._plans.note_of(job))
            known = self._jobs.get(job.job_id)
            if known is not None and known.state is JobState.QUEUED:
                following += self._next_task(known)
        log.info("study planned", extra={"jobs": len(made)})
        return following

    def _priors(self, route: Route, study: str, instances: Sequence[StoredInstance]) -> list[Header]:
        """Return the images of the patient's last studies before this one, newest first, frontal views first.

        What is of the same day is left out: which was first is not certain.
        """
        if not route.priors or self._history is None:
            return []
        day = study_day(instances[0].path)
        before: dict[str, date] = {}
        for other in self._history.other_studies(study) or ():
            earlier = study_day(other.path)
            if day is not None and earlier is not None and earlier < day:
                before[other.header.study_instance_uid] = earlier
        found: list[Header] = []
        taken = 0
        for uid in sorted(before, key=lambda uid: (before[uid], uid), reverse=True):
            images = self._planner.images_of_study(route, self._index.study(uid), self._index.sender)
            found += sorted(images, key=view_order)
            taken += bool(images)
            if taken == route.priors:
                break
        return found
