from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import ConfigurationError
from domain.job import DeliveryState, Job, JobState
from gateway import operator
from gateway.operator import NotPossible
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = StoreSettings(path=tmp_path / "store", low_water_mb=0)
    migrate_store(settings)
    with open_store(settings) as opened:
        yield opened


def add(store: Store, state: JobState, *, job_id: str = "a" * 40, route: str = "lungs") -> str:
    store.jobs.add(
        Job(
            job_id=job_id,
            series_instance_uid="1.2.3",
            study_instance_uid="1.2",
            stack="",
            sop_instance_uids=("1.2.3.4",),
            route=route,
            destinations=("pacs",),
            state=state,
            code="engine-failed",
            reason="It broke.",
        )
    )
    return job_id


def job(store: Store, job_id: str = "a" * 40) -> Job:
    found = store.jobs.get(job_id)
    assert found is not None
    return found


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.NOT_RUN])
def test_retry_queues_what_failed_as_a_new_attempt(store: Store, state: JobState) -> None:
    said = operator.retry(store.jobs, store.series, add(store, state))
    assert said == "it is queued again (attempt 2)"
    assert (job(store).state, job(store).attempt, job(store).reason) == (JobState.QUEUED, 2, "")


def test_retry_delivers_again_what_a_destination_did_not_take(store: Store) -> None:
    job_id = add(store, JobState.FAILED)
    store.jobs.set_delivery(job_id, "pacs", "1.5", state=DeliveryState.STORED)
    store.jobs.set_delivery(job_id, "pacs", "1.6", state=DeliveryState.DEAD, reason="refused")
    operator.retry(store.jobs, store.series, job_id)
    assert job(store).state is JobState.DELIVERING
    states = {item.sop_instance_uid: item.state for item in store.jobs.deliveries(job_id)}
    assert states == {"1.5": DeliveryState.STORED, "1.6": DeliveryState.QUEUED}


@pytest.mark.parametrize(
    ("state", "route"),
    [(JobState.NOT_RUN, ""), (JobState.NOT_APPLICABLE, "lungs"), (JobState.DONE, "lungs")],
)
def test_retry_plans_the_series_again_where_the_job_itself_would_end_the_same(
    store: Store, state: JobState, route: str
) -> None:
    said = operator.retry(store.jobs, store.series, add(store, state, route=route))
    assert "planned again" in said
    assert (job(store).state, job(store).attempt) == (state, 1)


def test_retry_asks_again_about_what_is_stored_and_not_confirmed(store: Store) -> None:
    job_id = add(store, JobState.UNCONFIRMED)
    store.jobs.set_delivery(job_id, "pacs", "1.5", state=DeliveryState.STORED)
    store.jobs.set_delivery(job_id, "pacs", "1.5", state=DeliveryState.UNCONFIRMED, attempted=False)
    assert "delivering again" in operator.retry(store.jobs, store.series, job_id)
    (delivery,) = store.jobs.deliveries(job_id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.STORED, 1)


def test_retry_of_what_waits_for_its_next_attempt_begins_a_new_round(store: Store) -> None:
    job_id = add(store, JobState.DELIVERING)
    store.jobs.set_delivery(job_id, "pacs", "1.5", state=DeliveryState.QUEUED, reason="no association")
    assert operator.retry(store.jobs, store.series, job_id) == "its destinations are tried now (attempt 2)"
    assert (job(store).state, job(store).attempt) == (JobState.DELIVERING, 2)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_an_open_job_cannot_be_retried_but_cancelled(store: Store, state: JobState) -> None:
    job_id = add(store, state)
    with pytest.raises(NotPossible, match="goes on by itself"):
        operator.retry(store.jobs, store.series, job_id)
    operator.cancel(store.jobs, job_id)
    assert (job(store).state, job(store).code) == (JobState.CANCELLED, "cancelled")


def test_an_ended_job_cannot_be_cancelled(store: Store) -> None:
    with pytest.raises(NotPossible, match="is done already"):
        operator.cancel(store.jobs, add(store, JobState.DONE))


def test_a_job_may_be_named_by_the_beginning_of_its_id(store: Store) -> None:
    add(store, JobState.DONE)
    add(store, JobState.DONE, job_id="a" * 10 + "b" * 30)
    assert operator.the_job(store.jobs, "a" * 10 + "bb").job_id.endswith("b")
    with pytest.raises(ConfigurationError, match="several"):
        operator.the_job(store.jobs, "aaaaaaa")
    with pytest.raises(ConfigurationError, match="no such job"):
        operator.the_job(store.jobs, "a")
