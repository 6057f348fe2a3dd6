"""The last step of a job: one attempt at one destination."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.errors import AlreadyThere, ClassRefused, DeliveryError
from domain.job import Delivery, DeliveryState, Job, JobState, ResultObject
from domain.ports import Destination, JobLog, SendReport
from pipeline.confirming import Confirming
from pipeline.delivery import DeliverySettings, asked
from pipeline.notices import is_notice
from pipeline.task import Task

log = logging.getLogger(__name__)


class Delivering:
    """Sends a job's objects and records, per object and destination, what the destination said and confirmed."""

    def __init__(
        self,
        *,
        jobs: JobLog,
        destinations: Mapping[str, Destination],
        settings: DeliverySettings,
        confirming: Confirming,
    ) -> None:
        self._jobs = jobs
        self._destinations = destinations
        self._settings = settings
        self._confirming = confirming

    def begin(self, job: Job, reason: str = "") -> list[Task]:
        """Queue for each destination what its profile asks for; return the first attempts. Harmless when repeated."""
        known = {(item.destination, item.sop_instance_uid) for item in self._jobs.deliveries(job.job_id)}
        for destination in job.destinations:
            for item in self._jobs.objects(job.job_id):
                # What says why there was no result is no part of one that came after all, nor the other way round
                if is_notice(item) != bool(job.code):
                    continue
                if item.is_for(destination) and (destination, item.sop_instance_uid) not in known:
                    self._jobs.set_delivery(
                        job.job_id, destination, item.sop_instance_uid, state=DeliveryState.QUEUED
                    )
        self._jobs.update(job.job_id, state=JobState.DELIVERING, reason=reason)
        return self.first_attempts(job)

    def first_attempts(self, job: Job) -> list[Task]:
        """Return the first attempt of this round for every destination that is not yet done with everything."""
        open_ones = [item for item in self._jobs.deliveries(job.job_id) if not self._is_settled(item)]
        unsent = {item.destination for item in open_ones if item.state.is_unsent}
        # Where nothing is open, one task finds it so and ends the job
        places = {item.destination for item in open_ones} or set(job.destinations[:1])
        return [
            _task("confirm" if open_ones and name not in unsent else "deliver", job, name, 1)
            for name in job.destinations
            if name in places
        ]

    def reopen(self, job: Job) -> bool:
        """Begin a new round where an answer came after the alarm; return whether one did."""
        if not self._confirming.has_news(job):
            return False
        for item in self._jobs.deliveries(job.job_id):
            if item.state is DeliveryState.UNCONFIRMED:
                self._jobs.set_delivery(
                    job.job_id,
                    item.destination,
                    item.sop_instance_uid,
                    state=DeliveryState.STORED,
                    reason=item.reason,
                    attempted=False,
                )
        self._jobs.update(job.job_id, state=JobState.DELIVERING, code="", attempt=job.attempt + 1)
        return True

    def attempt(self, job: Job, destination: str, number: int) -> tuple[list[Task], bool]:
        """Send what ``destination`` has not stored yet; return the next task, and whether the job is settled."""
        errors = self._send_unsent(job, destination)
        retry = {uid: error for uid, error in errors.items() if error is not None and error.retryable}
        if retry and number < self._settings.attempts():
            delay_s = self._settings.delay_s(number)
            log.warning(
                "delivery will be tried again", extra={"job": job.job_id, "delay_s": delay_s, "attempt": number}
            )
            return [_task("deliver", job, destination, number + 1, delay_s=delay_s)], False
        self._give_up(job, destination)
        if self._open(job, destination):
            return [_task("confirm", job, destination, 1)], False
        return [], self._all_settled(job)

    def confirm(self, job: Job, destination: str, number: int) -> tuple[list[Task], bool]:
        """Ask ``destination`` once how far everything is; return the next task, and whether the job is settled.

        What the destination has lost is sent again here, so that the whole ends in time.
        """
        self._send_unsent(job, destination)
        self._confirming.look(job, destination)
        rounds = self._confirming.profile(destination).rounds
        if self._open(job, destination):
            if number < rounds.attempts():
                return [_task("confirm", job, destination, number + 1, delay_s=rounds.delay_s(number))], False
            self._give_up(job, destination)
            self._confirming.stop(job, destination)
        return [], self._all_settled(job)

    def _is_settled(self, item: Delivery) -> bool:
        if item.state in (DeliveryState.DEAD, DeliveryState.UNCONFIRMED, DeliveryState.REPLACED):
            return True
        return item.state.has_reached(self._confirming.profile(item.destination).target)

    def _all_settled(self, job: Job) -> bool:
        return all(self._is_settled(item) for item in self._jobs.deliveries(job.job_id))

    def _open(self, job: Job, destination: str) -> list[Delivery]:
        found = (item for item in self._jobs.deliveries(job.job_id) if item.destination == destination)
        return [item for item in found if not self._is_settled(item)]

    def _give_up(self, job: Job, destination: str) -> None:
        for item in self._open(job, destination):
            if item.state.is_unsent:
                self._jobs.set_delivery(
                    job.job_id,
                    destination,
                    item.sop_instance_uid,
                    state=DeliveryState.DEAD,
                    reason=f"Given up: {item.reason}",
                    attempted=False,
                )

    def statement(self, job: Job) -> str:
        """Return what must be said of a job that is done: what stood in for what, and who got nothing at all."""
        deliveries = self._jobs.deliveries(job.job_id)
        said = [f"{item.destination}: {item.reason}" for item in deliveries if item.state is DeliveryState.REPLACED]
        served = {item.destination for item in deliveries}
        said += [
            f"{name}: this result has nothing that its profile asks for."
            for name in job.destinations
            if name not in served
        ]
        return " ".join(dict.fromkeys(said))

    def _send_unsent(self, job: Job, destination: str) -> dict[str, DeliveryError | None]:
        """Send what can be sent now; what refers to an object that may yet be replaced goes after it."""
        began = time.perf_counter()
        errors: dict[str, DeliveryError | None] = {}
        while pending := self._ready(job, destination, errors):
            for item in pending:
                # Kept before the first byte leaves: after a crash nobody can tell whether it arrived
                self._jobs.set_delivery(
                    job.job_id, destination, item.sop_instance_uid, state=DeliveryState.SENT, attempted=False
                )
            errors |= self._send(job, destination, pending)
        if errors:
            self._jobs.update(job.job_id, timings_s={"deliver": time.perf_counter() - began})
        return errors

    def _ready(self, job: Job, destination: str, tried: Mapping[str, object]) -> list[Delivery]:
        """Return what is unsent and not yet tried, unless it refers to something unsent that may be replaced."""
        unsent = {item.sop_instance_uid: item for item in self._open(job, destination) if item.state.is_unsent}
        objects = [item for item in self._jobs.objects(job.job_id) if item.sop_instance_uid in unsent]
        undecided = {item.variant for item in objects if item.fallback}
        return [
            unsent[item.sop_instance_uid]
            for item in objects
            if item.sop_instance_uid not in tried and item.needs not in undecided
        ]

    def _send(self, job: Job, name: str, pending: Sequence[Delivery]) -> dict[str, DeliveryError | None]:
        # In the order written, the SEG first: a viewer that opens the SR then finds what it refers to.
        wanted = {item.sop_instance_uid for item in pending}
        objects = [item for item in self._jobs.objects(job.job_id) if item.sop_instance_uid in wanted]
        reports = self._reports(name, objects)
        tried = {item.sop_instance_uid for item in pending if item.attempts or item.state is DeliveryState.SENT}
        reports = [_as_stored(report) if report.sop_instance_uid in tried else report for report in reports]
        refused = [item for item, report in zip(objects, reports, strict=True) if _is_replaced(item, report)]
        for report in reports:
            if report.sop_instance_uid not in {item.sop_instance_uid for item in refused}:
                self._jobs.set_delivery(
                    job.job_id,
                    name,
                    report.sop_instance_uid,
                    state=_state_after(report.error),
                    reason=str(report.error or ""),
                )
        said = {report.sop_instance_uid: report.error for report in reports}
        for variant in dict.fromkeys(item.variant for item in refused):
            self._replace(job, name, variant, next(said[x.sop_instance_uid] for x in refused if x.variant == variant))
        return said

    def _reports(self, name: str, objects: Sequence[ResultObject]) -> list[SendReport]:
        """Send; return a report for each object, in order."""
        destination = self._destinations.get(name)
        if destination is None:
            error = DeliveryError(f"There is no destination called {name!r} in the configuration.")
            return [SendReport(sop_instance_uid=item.sop_instance_uid, error=error) for item in objects]
        try:
            reports = asked(name, lambda: destination.send([item.path for item in objects]))
        except DeliveryError as error:
            reports = [SendReport(sop_instance_uid="", error=error)] * len(objects)
        return [
            replace(report, sop_instance_uid=item.sop_instance_uid)
            for item, report in zip(objects, reports, strict=True)
        ]

    def _replace(self, job: Job, destination: str, variant: str, error: DeliveryError | None) -> None:
        """Queue what stands in for a refused variant, and in place of what refers to that, what refers to this."""
        objects = self._jobs.objects(job.job_id)
        here = {item.sop_instance_uid for item in self._open(job, destination) if item.state.is_unsent}
        queued = [item for item in objects if item.sop_instance_uid in here]
        fallback = next(item.fallback for item in objects if item.variant == variant)
        swapped = {variant: fallback}
        for item in queued:
            if item.needs == variant:
                other = next(x for x in objects if x.kind == item.kind and x.needs == fallback)
                swapped[item.variant] = other.variant
        kinds = " and ".join(dict.fromkeys(item.kind for item in objects if item.variant == fallback))
        self._jobs.replace_deliveries(
            job.job_id,
            destination,
            replaced=[item.sop_instance_uid for item in queued if item.variant in swapped],
            by=[item.sop_instance_uid for item in objects if item.variant in swapped.values()],
            reason=f"{str(error)[:1].upper()}{str(error)[1:]}: {kinds} was sent instead.",
        )
        log.warning(
            "destination refuses a SOP class; another object goes in its place",
            extra={"job": job.job_id, "destination": destination, "reason": str(error), "instead": kinds},
        )


def _task(step: str, job: Job, destination: str, number: int, *, delay_s: float = 0.0) -> Task:
    args = (job.job_id, destination, job.attempt, number)
    return Task(step=step, args=args, queue="deliver", priority=job.priority, delay_s=delay_s)


def _as_stored(report: SendReport) -> SendReport:
    """Take a refusal as a duplicate for success: an earlier attempt arrived, and only its answer was lost."""
    return replace(report, error=None) if isinstance(report.error, AlreadyThere) else report


def _is_replaced(item: ResultObject, report: SendReport) -> bool:
    return bool(item.fallback) and isinstance(report.error, ClassRefused)


def _state_after(error: DeliveryError | None) -> DeliveryState:
    if error is None:
        return DeliveryState.STORED
    return DeliveryState.QUEUED if error.retryable else DeliveryState.DEAD
