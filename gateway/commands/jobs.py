"""``voxgate jobs``: reads and changes the job log; the workers act upon what they find there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domain.errors import ConfigurationError
from domain.job import Job, JobState
from gateway import operator, wiring
from gateway.commands.offline import segment_line
from gateway.config import Config
from gateway.job_view import job_as_json, waiting_as_json
from gateway.standing import Standing, standing_of, without_jobs
from gateway.terminal import DONE, FAILED, print_json, print_table, quiet_logs, say
from store.store import Store

_MOST_JOBS = 1_000_000
"""A database counts no further than its integers go."""
_SHOWN = 20
"""More sentences than this about series without a job are too many to read."""


@contextmanager
def _store(config: Config) -> Iterator[Store]:
    quiet_logs()
    if not config.database.url.get_secret_value() and not config.store.path.is_dir():
        raise ConfigurationError(f"store.path: there is no store at {config.store.path}")
    wiring.prepare_store(config)
    with wiring.opened_store(config) as store:
        yield store


def list_jobs(
    config: Config, *, series: str | None, study: str | None, state: str | None, limit: int, as_json: bool
) -> int:
    """Print jobs, newest first, and how far ``series``, or every series without a job, is.

    Return 1 where nothing of ``series`` was ever received.
    """
    wanted = _state(state)
    with _store(config) as store:
        log = store.jobs
        most = min(limit, _MOST_JOBS)
        jobs = log.find(series_instance_uid=series, study_instance_uid=study, state=wanted, limit=most)
        standing = _standing(config, store, series) if series else None
        without = [] if series or wanted else _without_jobs(config, store, study)
        if as_json:
            found = [job_as_json(job, log.deliveries(job.job_id), log.objects(job.job_id)) for job in jobs]
            waiting = (
                [waiting_as_json(series, standing)]
                if series and standing and standing.sentence and not wanted
                else []
            )
            print_json([*waiting, *found])
    if not as_json:
        if jobs:
            print_table(("Job", "Instances", "Stack", "Route", "State", "Cause", "Reason"), map(_row, jobs))
        if standing is not None and standing.sentence:
            print(standing.sentence)
        elif without:
            _tell_without_jobs(without)
        elif not jobs:
            print("no jobs")
    return FAILED if standing is not None and standing.state == "unknown" else DONE


def _tell_without_jobs(standings: Sequence[Standing]) -> None:
    print(f"{len(standings)} series {'has' if len(standings) == 1 else 'have'} no job yet")
    said = Counter(standing.sentence for standing in standings)
    for sentence, count in said.most_common(_SHOWN):
        print(f"  {sentence}" + (f" ({count} series)" if count > 1 else ""))
    if len(said) > _SHOWN:
        print("  and more: voxgate jobs list --series UID tells of one")


def _standing(config: Config, store: Store, series: str) -> Standing:
    return standing_of(
        store.series,
        series,
        has_jobs=bool(store.jobs.find(series_instance_uid=series, limit=1)),
        now=wiring.now(),
        settings=wiring.completeness(config),
    )


def _without_jobs(config: Config, store: Store, study: str | None) -> list[Standing]:
    return without_jobs(store.series, store.jobs, study=study, now=wiring.now(), settings=wiring.completeness(config))


def _state(state: str | None) -> JobState | None:
    try:
        return JobState(state) if state else None
    except ValueError:
        raise ConfigurationError(f"--state: must be one of {', '.join(JobState)}") from None


def _row(job: Job) -> tuple[object, ...]:
    return (
        job.job_id[:12],
        len(job.sop_instance_uids),
        job.stack or "-",
        job.route or "-",
        job.state.value,
        job.code or "-",
        job.reason or "-",
    )


def show_job(config: Config, given: str, *, as_json: bool) -> None:
    """Print one job with its objects and deliveries."""
    with _store(config) as store:
        log = store.jobs
        job = operator.the_job(log, given)
        deliveries, objects = log.deliveries(job.job_id), log.objects(job.job_id)
    if as_json:
        print_json(job_as_json(job, deliveries, objects))
        return
    lines = [
        ("job", job.job_id),
        ("state", f"{job.state.value} {job.code}".strip()),
        ("reason", job.reason),
        ("route", job.route and f"{job.route} ({job.engine} {job.engine_version})"),
        ("instances", f"{len(job.sop_instance_uids)} {job.stack}".strip()),
        ("generation", job.generation if job.generation > 1 else ""),
        ("seconds", ", ".join(f"{step} {took:.2f}" for step, took in job.timings_s.items())),
        *(("segment", segment_line(segment)) for segment in job.summary),
        *((item.kind, str(item.path)) for item in objects),
        *(
            (f"to {item.destination}", f"{item.state.value}, attempt {item.attempts} {item.reason}".strip())
            for item in deliveries
        ),
    ]
    for name, value in lines:
        if value:
            print(f"{name:<12} {value}")


def retry_job(config: Config, given: str) -> None:
    """Set a job back, so that a worker takes it up again."""
    with _store(config) as store:
        what = operator.retry(store.jobs, store.series, given)
    say(f"job {given[:12]}: {what}")


def cancel_job(config: Config, given: str) -> None:
    """End a job."""
    with _store(config) as store:
        operator.cancel(store.jobs, given)
    say(f"job {given[:12]} is cancelled")
