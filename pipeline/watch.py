"""The loop beside the queues: hands on complete series, brings open jobs on, keeps the store from filling up."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from domain.job import Job, JobState
from domain.ports import JobLog, SeriesIndex
from domain.series import SeriesArrival
from pipeline.bell import Bell
from pipeline.completeness import CompletenessSettings, pause_s, readiness
from pipeline.planning import Planner
from pipeline.steps import Steps
from pipeline.task import Task

log = logging.getLogger(__name__)

_MAY_RUN = (JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING, JobState.UNCONFIRMED, JobState.FAILED)
"""By itself or when an operator says so."""
WAITS_FOR_DEVICE = (
    "Waits for the device of its engine ([engines.*] device), which is busy, or whose process does not run: "
    "voxgate serve, or voxgate serve --role gpu, on the host that has the device."
)


class TaskQueue(Protocol):
    """The part of the durable engine that the loop needs."""

    def enqueue(self, task: Task) -> None: ...

    def active(self) -> set[str]: ...

    def prune(self, older_than: timedelta) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How often the loop looks, and how long things are kept."""

    interval_s: float = 0.25
    """Between two looks while series arrive."""
    idle_s: float = 2.0
    """The longest pause while none does; the bell ends it."""
    jobs_s: float = 1.0
    upkeep_s: float = 30.0
    retention_days: float = 0.0
    """0 keeps everything."""
    results: Path


class Watch:
    """Runs in one worker process of a store. Everything it starts has a deterministic identity, so two do no harm."""

    def __init__(
        self,
        *,
        index: SeriesIndex,
        jobs: JobLog,
        queue: TaskQueue,
        steps: Steps,
        planner: Planner,
        completeness: CompletenessSettings,
        settings: WatchSettings,
        sweep: Callable[[], int],
        clock: Callable[[], datetime],
        bell: Bell,
    ) -> None:
        self._index = index
        self._jobs = jobs
        self._queue = queue
        self._steps = steps
        self._planner = planner
        self._completeness = completeness
        self._settings = settings
        self._sweep = sweep
        self._clock = clock
        self._bell = bell
        self._seen: set[tuple[str, int, JobState]] = set()
        self._planning: dict[tuple[str, int], datetime] = {}
        """Sets that were handed on and are not planned yet, and since when."""
        self._pause_s = settings.interval_s

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set; a failing look is logged and repeated."""
        next_jobs = next_upkeep = self._clock()
        self._bell.listen()
        threading.Thread(target=_wake_at, args=(stop, self._bell), name="watch-end", daemon=True).start()
        while not stop.is_set():
            try:
                self.hand_on_complete_series()
                if self._clock() >= next_jobs:
                    self.bring_on_open_jobs()
                    next_jobs = self._clock() + timedelta(seconds=self._settings.jobs_s)
                if self._clock() >= next_upkeep:
                    self.restart_stranded_jobs()
                    self.say_what_is_waited_for()
                    self._steps.reopen_unconfirmed_jobs()
                    self.remove_old_series()
                    self._sweep()
                    self._queue.prune(timedelta(days=30))
                    next_upkeep = self._clock() + timedelta(seconds=self._settings.upkeep_s)
            except Exception:
                log.exception("watch loop failed; it looks again")
                self._pause_s = self._settings.interval_s
            self._bell.wait(self._pause_s)
        self._bell.close()

    def hand_on_complete_series(self) -> int:
        """Plan every series that is complete; return how many were handed on.

        The plan freezes the set when it has recorded what becomes of it. One that got lost on the way (its workflow
        ended in an error, the engine's tables are gone, or the series was removed and came again with the same
        revision) is handed on once more, under a revision of its own.
        """
        now, count = self._clock(), 0
        arrivals = self._index.arrivals()
        self._planning = {
            key: since
            for key, since in self._planning.items()
            if key in {(arrival.series_instance_uid, arrival.revision) for arrival in arrivals}
        }
        waiting = []
        for arrival in arrivals:
            key = (arrival.series_instance_uid, arrival.revision)
            if key in self._planning:
                continue
            if self._ready(arrival, now):
                args = (*key, self._planner.fingerprint)
                self._queue.enqueue(Task(step="plan", args=args, queue="cpu", priority=1))
                self._planning[key] = now
                count += 1
            else:
                waiting.append(arrival)
        self._find_lost_plans(now)
        self._pause_s = pause_s(
            waiting, now, self._completeness, often_s=self._settings.interval_s, seldom_s=self._settings.idle_s
        )
        return count

    def _find_lost_plans(self, now: datetime) -> None:
        patience = timedelta(seconds=2 * self._settings.upkeep_s)
        late = [key for key, since in self._planning.items() if now - since > patience]
        if not late:
            return
        busy = {tuple(identity.split("/")[1:3]) for identity in self._queue.active()}
        for key in late:
            if tuple(Task(step="plan", args=key, queue="cpu").identity.split("/")[1:3]) in busy:
                self._planning[key] = now
            else:
                log.warning("lost plan is made again")
                self._index.thaw(key[0])

    def _ready(self, arrival: SeriesArrival, now: datetime) -> bool:
        short = arrival.expected is not None and arrival.instances < arrival.expected
        conflicts = self._index.conflicts(arrival.series_instance_uid) if short else 0
        return readiness(arrival, now, self._completeness, conflicts=conflicts).ready

    def bring_on_open_jobs(self) -> None:
        """Enqueue jobs that an operator has set back to queued or delivering."""
        for state in (JobState.QUEUED, JobState.DELIVERING):
            for job in self._jobs.find(state=state):
                key = (job.job_id, job.attempt, state)
                if key in self._seen:
                    continue
                for task in self._steps.next_task(job):
                    self._queue.enqueue(task)
                self._seen.add(key)

    def restart_stranded_jobs(self) -> None:
        """Start again open jobs for which no task waits or runs, e.g. after the engine's tables were lost."""
        stale = self._clock() - timedelta(seconds=2 * self._settings.upkeep_s)
        open_jobs = [
            job
            for state in (JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING)
            for job in self._jobs.find(state=state)
            if job.updated_at is not None and job.updated_at < stale
        ]
        if not open_jobs:
            return
        busy = {identity.split("/")[1] for identity in self._queue.active()}
        for job in open_jobs:
            if job.job_id not in busy:
                log.warning("stranded job starts again", extra={"job": job.job_id, "state": str(job.state)})
                state = JobState.DELIVERING if job.state is JobState.DELIVERING else JobState.QUEUED
                self._jobs.update(job.job_id, state=state, attempt=job.attempt + 1)

    def say_what_is_waited_for(self) -> int:
        """State the reason of jobs that wait for long in the queue of a device; return how many."""
        stale = self._clock() - timedelta(seconds=2 * self._settings.upkeep_s)
        waiting = [
            job
            for job in self._jobs.find(state=JobState.QUEUED)
            if not job.reason and job.updated_at and job.updated_at < stale and self._steps.waits_for_device(job)
        ]
        for job in waiting:
            self._jobs.update(job.job_id, reason=WAITS_FOR_DEVICE)
        return len(waiting)

    def remove_old_series(self) -> int:
        """Remove series past their retention whose results are confirmed, or that never had any; return how many."""
        if self._settings.retention_days <= 0:
            return 0
        count = 0
        old = self._index.series_older_than(self._clock() - timedelta(days=self._settings.retention_days))
        needed = self._needed_by_open_jobs() if old else set()
        for uid in old:
            jobs = self._jobs.find(series_instance_uid=uid)
            if not jobs or not all(self._is_confirmed(job) for job in jobs):
                continue
            if needed.isdisjoint(item.header.sop_instance_uid for item in self._index.instances(uid)):
                self._index.remove_series(uid)
                for job in jobs:
                    shutil.rmtree(self._settings.results / job.job_id, ignore_errors=True)
                count += 1
        if count:
            log.info("series past retention removed", extra={"series": count})
        return count

    def _needed_by_open_jobs(self) -> set[str]:
        """Return the instances of jobs that may yet run: those of a study or a drawing are of several series."""
        jobs = [job for state in _MAY_RUN for job in self._jobs.find(state=state)]
        return {uid for job in jobs for uid in (*job.sop_instance_uids, job.drawing)}

    def _is_confirmed(self, job: Job) -> bool:
        if job.state is JobState.DONE:
            deliveries = self._jobs.deliveries(job.job_id)
            return bool(deliveries) and all(item.state.ended_well for item in deliveries)
        return job.state in (JobState.NOT_RUN, JobState.NOT_APPLICABLE, JobState.CANCELLED)


def _wake_at(stop: threading.Event, bell: Bell) -> None:
    stop.wait()
    bell.wake()
