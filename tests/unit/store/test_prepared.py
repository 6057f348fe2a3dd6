"""Statements that go straight to the driver behave as if SQLAlchemy had executed them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from domain.errors import StorageError
from store import schema
from store.database import Database

SERIES = schema.series.c
ROW = {"series_instance_uid": "1.2", "study_instance_uid": "1", "instances": 1, "conflicts": 0, "revision": 1,
       "frozen_revision": 0, "sender": "CT", "last_arrival_at": None}  # fmt: skip
FOUND = select(SERIES.series_instance_uid, SERIES.sender, SERIES.last_arrival_at).where(
    SERIES.series_instance_uid == bindparam("uid")
)


def test_what_is_written_is_found_with_its_moment_in_utc(database: Database) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    with database.write() as connection:
        database.prepared(insert(schema.series), given=ROW).run(connection, [{**ROW, "last_arrival_at": noon}])
        (row,) = database.prepared(FOUND).rows(connection, {"uid": "1.2"})
        assert connection.execute(FOUND, {"uid": "1.2"}).one() == tuple(row)
    assert (row.series_instance_uid, row.sender) == ("1.2", "CT")
    assert row.last_arrival_at == datetime(2026, 1, 2, 10, tzinfo=UTC)


def test_several_rows_are_written_at_once_and_an_absent_moment_stays_absent(database: Database) -> None:
    rows = [{**ROW, "series_instance_uid": f"1.{number}"} for number in range(3)]
    found = database.prepared(FOUND)
    with database.write() as connection:
        database.prepared(insert(schema.series), given=ROW).run(connection, rows)
        assert [len(found.rows(connection, {"uid": f"1.{number}"})) for number in range(4)] == [1, 1, 1, 0]
        assert found.rows(connection, {"uid": "1.0"})[0].last_arrival_at is None


def test_the_same_key_twice_is_an_integrity_error_and_writes_nothing(database: Database) -> None:
    writing = database.prepared(insert(schema.series), given=ROW)
    with pytest.raises(IntegrityError), database.write() as connection:
        writing.run(connection, [{**ROW, "series_instance_uid": "1.1"}, ROW, ROW])
    with database.read() as connection:
        assert connection.execute(select(schema.series)).all() == []


def test_any_other_fault_of_the_database_is_a_storage_error(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE series")
    with pytest.raises(StorageError), database.write() as connection:
        database.prepared(FOUND).rows(connection, {"uid": "1.2"})
    with database.write() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
