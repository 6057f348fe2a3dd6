"""What an operator may do to a job. Only the job log is changed; the workers look at it every second."""

from __future__ import annotations

from dataclasses import replace

from domain.errors import ConfigurationError, GatewayError
from domain.job import DeliveryState, Job, JobState
from domain.ports import JobLog

_SHORTEST_PREFIX = 6


class NotPossible(GatewayError):
    """The job is in no state for that."""


def the_job(log: JobLog, given: str) -> Job:
    """Return the job with this id, or with an id that begins so.

    Raises
    ------
    ConfigurationError
        There is none, or there are several.
    """
    exact = log.get(given)
    if exact is not None:
        return exact
    found = [job for job in log.find() if job.job_id.startswith(given)] if len(given) >= _SHORTEST_PREFIX else []
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(
        "several jobs begin so" if found else "there is no such job; voxgate jobs list shows them"
    )


def retry(log: JobLog, given: str) -> Job:
    """Set a failed or cancelled job back: to its deliveries where its objects are written, else to its beginning.

    Raises
    ------
    NotPossible
        The job is open, or has nothing to repeat.
    """
    job = the_job(log, given)
    if not job.state.is_final:
        raise NotPossible(f"the job is {job.state.value}: it goes on by itself")
    if job.state in (JobState.DONE, JobState.NOT_APPLICABLE) or not job.route:
        raise NotPossible(f"the job is {job.state.value}: running it again would give the same answer")
    dead = [item for item in log.deliveries(job.job_id) if item.state is not DeliveryState.STORED]
    for item in dead:
        log.set_delivery(job.job_id, item.destination, item.sop_instance_uid, state=DeliveryState.QUEUED)
    state = JobState.DELIVERING if dead else JobState.QUEUED
    attempt = job.attempt + 1
    log.update(job.job_id, state=state, attempt=attempt, code="", reason="")
    return replace(job, state=state, attempt=attempt, code="", reason="")


def cancel(log: JobLog, given: str) -> Job:
    """End a job that is not final; a running step finishes, and its outcome is dropped.

    Raises
    ------
    NotPossible
        The job has ended already.
    """
    job = the_job(log, given)
    if job.state.is_final:
        raise NotPossible(f"the job is {job.state.value} already")
    log.update(job.job_id, state=JobState.CANCELLED, code="cancelled", reason="Cancelled by an operator.")
    return replace(job, state=JobState.CANCELLED, code="cancelled", reason="Cancelled by an operator.")
