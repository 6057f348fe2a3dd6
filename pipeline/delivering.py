"""The last step of a job: one attempt at one destination."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.errors import DeliveryError
from domain.job import Delivery, DeliveryState, Job, JobState
from domain.ports import Destination, JobLog, SendReport
from pipeline.delivery import DeliverySettings
from pipeline.task import Task

log = logging.getLogger(__name__)


class Delivering:
    """Sends a job's objects and records, per object and destination, what the destination said."""

    def __init__(self, *, jobs: JobLog, destinations: Mapping[str, Destination], settings: DeliverySettings) -> None:
        self._jobs = jobs
        self._destinations = destinations
        self._settings = settings

    def begin(self, job: Job) -> list[Task]:
        """Queue every object for every destination; return the first attempts. Harmless when repeated."""
        known = {(item.destination, item.sop_instance_uid) for item in self._jobs.deliveries(job.job_id)}
        for destination in job.destinations:
            for item in self._jobs.objects(job.job_id):
                if (destination, item.sop_instance_uid) not in known:
                    self._jobs.set_delivery(
                        job.job_id, destination, item.sop_instance_uid, state=DeliveryState.QUEUED
                    )
        self._jobs.update(job.job_id, state=JobState.DELIVERING, reason="")
        return self.first_attempts(job)

    def first_attempts(self, job: Job) -> list[Task]:
        """Return the first attempt of this round for every destination that has not stored everything.

        Where all have, one attempt has nothing to send and brings the job to its end.
        """
        waiting = {d.destination for d in self._jobs.deliveries(job.job_id) if d.state is DeliveryState.QUEUED}
        names = [name for name in job.destinations if name in waiting] or job.destinations[:1]
        return [
            Task(step="deliver", args=(job.job_id, name, job.attempt, 1), queue="deliver", priority=job.priority)
            for name in names
        ]

    def attempt(self, job: Job, destination: str, number: int) -> tuple[list[Task], bool]:
        """Send what ``destination`` has not stored yet; return the next attempt, and whether the job is settled."""
        pending = [
            item
            for item in self._jobs.deliveries(job.job_id)
            if item.destination == destination and item.state is DeliveryState.QUEUED
        ]
        began = time.perf_counter()
        errors = self._send(job, destination, pending) if pending else {}
        if pending:
            self._jobs.update(job.job_id, timings_s={"deliver": time.perf_counter() - began})
        retry = {uid: error for uid, error in errors.items() if error is not None and error.retryable}
        if retry and number < self._settings.attempts():
            delay_s = self._settings.delay_s(number)
            log.warning(
                "delivery will be tried again", extra={"job": job.job_id, "delay_s": delay_s, "attempt": number}
            )
            again = (job.job_id, destination, job.attempt, number + 1)
            return [Task(step="deliver", args=again, queue="deliver", priority=job.priority, delay_s=delay_s)], False
        for uid, error in retry.items():
            self._jobs.set_delivery(
                job.job_id, destination, uid, state=DeliveryState.DEAD, reason=f"Given up: {error}"
            )
        return [], all(item.state is not DeliveryState.QUEUED for item in self._jobs.deliveries(job.job_id))

    def _send(self, job: Job, name: str, pending: Sequence[Delivery]) -> dict[str, DeliveryError | None]:
        destination = self._destinations.get(name)
        if destination is None:
            error = DeliveryError(f"There is no destination called {name!r} in the configuration.")
            reports = [SendReport(sop_instance_uid=item.sop_instance_uid, error=error) for item in pending]
        else:
            # In the order written, the SEG first: a viewer that opens the SR then finds what it refers to.
            wanted = {item.sop_instance_uid for item in pending}
            objects = [item for item in self._jobs.objects(job.job_id) if item.sop_instance_uid in wanted]
            reports = [
                replace(report, sop_instance_uid=item.sop_instance_uid)
                for item, report in zip(objects, destination.send([item.path for item in objects]), strict=True)
            ]
        for report in reports:
            self._jobs.set_delivery(
                job.job_id,
                name,
                report.sop_instance_uid,
                state=_state_after(report.error),
                reason=str(report.error or ""),
            )
        return {report.sop_instance_uid: report.error for report in reports}


def _state_after(error: DeliveryError | None) -> DeliveryState:
    if error is None:
        return DeliveryState.STORED
    return DeliveryState.QUEUED if error.retryable else DeliveryState.DEAD
