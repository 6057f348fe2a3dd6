"""Storage commitment's tables, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.commitment import CommitmentRequest, Reference, Transaction
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    settings = StoreSettings(path=tmp_path, low_water_mb=0)
    migrate_store(settings, url)
    with open_store(settings, url) as opened:
        yield opened


def question(uid: str, *, after_s: float = 0.0) -> Transaction:
    return Transaction(
        transaction_uid=uid,
        job_id="job",
        destination="pacs",
        sop_instance_uids=frozenset({"1.1", "1.2"}),
        requested_at=NOW + timedelta(seconds=after_s),
    )


def asked(uid: str, *instances: str) -> CommitmentRequest:
    references = tuple(Reference(sop_class_uid="1.2", sop_instance_uid=instance) for instance in instances)
    return CommitmentRequest(
        transaction_uid=uid, ae_title="CT01", called_ae_title="VOXGATE", references=references, received_at=NOW
    )


def test_a_question_is_open_until_its_answer_is_acted_upon(store: Store) -> None:
    table = store.transactions
    table.begin(question("2.2", after_s=1.0))
    table.begin(question("2.1"))
    table.taken("2.1")
    first, second = table.open("job", "pacs")
    assert (first, second) == (replace(question("2.1"), taken=True), question("2.2", after_s=1.0))
    assert table.answer("2.1", ["1.1"], {"1.2": 0x0112})
    assert table.is_answered("2.1")
    assert not table.is_answered("2.2")
    first = table.open("job", "pacs")[0]
    assert (first.committed, first.failed) == (frozenset({"1.1"}), {"1.2": 0x0112})
    table.close("2.1")
    assert [item.transaction_uid for item in table.open("job", "pacs")] == ["2.2"]
    assert table.open("job", "another") == ()
    store.jobs.remove("job")
    assert table.open("job", "pacs") == ()


def test_only_what_was_asked_counts_and_a_failure_outweighs(store: Store) -> None:
    table = store.transactions
    table.begin(question("2.1"))
    assert not table.answer("2.9", ["1.1"], {})
    assert table.answer("2.1", ["1.1", "1.2", "9.9"], {"1.2": 0x0110, "9.8": 0x0112})
    assert table.answer("2.1", ["1.1", "1.2"], {})
    (transaction,) = table.open("job", "pacs")
    assert (transaction.committed, transaction.failed) == (frozenset({"1.1"}), {"1.2": 0x0110})


def test_each_owed_answer_is_claimed_by_one(store: Store) -> None:
    table = store.commitment_requests
    for number in range(20):
        table.add(asked(f"2.{number}", "1.1"), due_at=NOW)

    def claim(_number: int) -> str | None:
        claimed = table.claim(NOW, lease=timedelta(minutes=5))
        return None if claimed is None else claimed.transaction_uid

    with ThreadPoolExecutor(4) as pool:
        claimed = [uid for uid in pool.map(claim, range(60)) if uid is not None]
    assert sorted(claimed) == sorted(f"2.{number}" for number in range(20))
    assert table.claim(NOW, lease=timedelta(minutes=5)) is None
    assert table.claim(NOW + timedelta(minutes=6), lease=timedelta(minutes=5)) is not None  # its receiver died


def test_an_answer_that_another_claimed_is_not_put_off(store: Store) -> None:
    table = store.commitment_requests
    kept = table.add(asked("2.1", "1.1"), due_at=NOW)
    assert table.put_off(kept, NOW)
    claimed = table.claim(NOW, lease=timedelta(minutes=5))
    assert claimed is not None
    assert not table.put_off(kept, NOW)
    assert table.put_off(claimed, NOW)
    table.done(claimed)
    assert not table.put_off(claimed, NOW)


def test_an_answer_that_was_given_is_owed_again_when_it_is_asked_again(store: Store) -> None:
    table = store.commitment_requests
    table.add(asked("2.1", "1.1"), due_at=NOW)
    claimed = table.claim(NOW, lease=timedelta(0))
    assert claimed is not None
    table.done(claimed)
    assert table.claim(NOW + timedelta(days=9), lease=timedelta(0)) is None
    assert not table.add(asked("2.1", "1.1"), due_at=NOW).duplicate
    assert table.add(asked("2.1", "1.2"), due_at=NOW).duplicate
