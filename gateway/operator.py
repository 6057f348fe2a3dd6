"""What an operator may do to a job. Only the job log is changed; the workers look at it every second."""

from __future__ import annotations

from domain.errors import ConfigurationError, GatewayError
from domain.job import DeliveryState, Job, JobState
from domain.ports import JobLog, SeriesIndex

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


def retry(log: JobLog, index: SeriesIndex, given: str) -> str:
    """Set a job back, and return in words what will happen.

    A failed or cancelled job goes back to its deliveries where its objects are written, else to its beginning; so
    does one whose images could not be read. One whose results are not confirmed asks its destinations again; one
    that waits for its next attempt to deliver makes it now. Of what ended well, or never began, the series is planned
    again: that makes a new job where routes or engines have changed, and nothing where they have not.

    Raises
    ------
    NotPossible
        The job goes on by itself.
    """
    job = the_job(log, given)
    if job.state is JobState.DELIVERING:
        return _deliver_now(log, job)
    if not job.state.is_final:
        raise NotPossible(f"the job is {job.state.value}: it goes on by itself")
    if not job.route or job.state in (JobState.DONE, JobState.NOT_APPLICABLE):
        index.thaw(job.series_instance_uid)
        return "its series is planned again; a new job comes of it where routes or engines have changed"
    _undo_replacements(log, job)
    waiting = [item for item in log.deliveries(job.job_id) if not item.state.ended_well]
    for item in waiting:
        # What was stored is asked about again, and sent again only where the destination says that it is gone
        back = DeliveryState.STORED if item.state is DeliveryState.UNCONFIRMED else DeliveryState.QUEUED
        log.set_delivery(job.job_id, item.destination, item.sop_instance_uid, state=back, attempted=False)
    are_there = all(item.path.is_file() for item in log.objects(job.job_id))
    state = JobState.DELIVERING if waiting and are_there else JobState.QUEUED
    log.update(job.job_id, state=state, attempt=job.attempt + 1, code="", reason="")
    return f"it is {state.value} again (attempt {job.attempt + 1})"


def _undo_replacements(log: JobLog, job: Job) -> None:
    """Begin anew with what a destination should have had, where what stood in for it did not arrive either."""
    objects = {item.sop_instance_uid: item for item in log.objects(job.job_id)}
    for destination in job.destinations:
        here = [item for item in log.deliveries(job.job_id) if item.destination == destination]
        stand_ins = [
            item.sop_instance_uid
            for item in here
            if not item.state.ended_well
            and item.sop_instance_uid in objects
            and not objects[item.sop_instance_uid].is_for(destination)
        ]
        if stand_ins:
            log.replace_deliveries(
                job.job_id,
                destination,
                replaced=stand_ins,
                by=[item.sop_instance_uid for item in here if item.state is DeliveryState.REPLACED],
                reason="Tried again from the beginning.",
            )


def _deliver_now(log: JobLog, job: Job) -> str:
    """Begin a new round of attempts; the one that waits for its time finds itself outdated."""
    if any(item.state is DeliveryState.SENT for item in log.deliveries(job.job_id)):
        raise NotPossible("its results are being sent at this moment")
    log.update(job.job_id, attempt=job.attempt + 1)
    return f"its destinations are tried now (attempt {job.attempt + 1})"


def cancel(log: JobLog, given: str) -> None:
    """End a job that is not final; a running step finishes, and nothing follows it.

    Raises
    ------
    NotPossible
        The job has ended already.
    """
    job = the_job(log, given)
    if job.state.is_final:
        raise NotPossible(f"the job is {job.state.value} already")
    log.update(job.job_id, state=JobState.CANCELLED, code="cancelled", reason="Cancelled by an operator.")
