from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from domain.errors import StorageError
from store.database import Database
from store.turns import Turns


def turns(path: Path, *, patience_s: float = 10.0) -> Turns:
    return Turns(path / "index-turn", patience_s=patience_s)


def test_another_process_waits_until_the_turn_is_over(tmp_path: Path) -> None:
    first, second = turns(tmp_path), turns(tmp_path)  # each opens the file, as two processes do
    order: list[str] = []

    def follow() -> None:
        with second.turn():
            order.append("second")

    with first.turn():
        follower = threading.Thread(target=follow)
        follower.start()
        time.sleep(0.01)
        order.append("first")
    follower.join(10)
    assert order == ["first", "second"]


def test_a_process_that_was_frozen_in_its_turn_does_not_stop_the_others(tmp_path: Path) -> None:
    frozen, alive = turns(tmp_path), turns(tmp_path)
    with frozen.turn(), alive.turn():
        pass
    with alive.turn():  # and what it did not hold it has not given back
        pass


def test_where_no_turns_can_be_taken_sqlite_alone_keeps_writers_apart(tmp_path: Path) -> None:
    (tmp_path / "index-turn").mkdir()  # no file can be opened there, as on a disk without room for one
    mine = turns(tmp_path)
    for _ in range(2):
        with mine.turn():
            pass
    mine.close()


def test_threads_of_a_process_exclude_one_another_and_are_told_when_it_takes_too_long(tmp_path: Path) -> None:
    mine = turns(tmp_path, patience_s=0.01)
    errors: list[StorageError] = []

    def ask() -> None:
        try:
            with mine.turn():
                raise AssertionError("two at a time")
        except StorageError as error:
            errors.append(error)

    with mine.turn():
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(10)
    assert len(errors) == 1


def test_a_writer_that_comes_after_the_end_does_not_lock_a_stranger(tmp_path: Path) -> None:
    mine, other = turns(tmp_path), turns(tmp_path)
    with mine.turn():
        pass
    mine.close()
    strangers = [(tmp_path / str(number)).open("w") for number in range(3)]  # one of them gets the number
    with mine.turn():
        assert other._ask() is False
        for stranger in strangers:
            with Path(stranger.name).open() as again:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stranger.close()
    mine.close()
    other.close()


def test_the_connection_that_writes_is_kept(database: Database) -> None:
    with database.write() as first:
        pass
    with database.write() as second:
        pass
    assert first is second


def test_what_was_left_by_an_error_is_not_seen_by_the_next_writer(database: Database) -> None:
    def half() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO removals (path) VALUES ('half')"))
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        half()
    with database.write() as connection:
        assert connection.execute(text("SELECT count(*) FROM removals")).scalar() == 0
        connection.execute(text("INSERT INTO removals (path) VALUES ('whole')"))
    with database.read() as reader:
        assert reader.execute(text("SELECT path FROM removals")).scalars().all() == ["whole"]
