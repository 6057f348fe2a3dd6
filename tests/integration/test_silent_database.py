"""A database server that stands still and keeps its connections up: nobody waits for it for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from postgres_server import postgres_programs, postgres_server
from sqlalchemy import make_url, text
from sqlalchemy.engine import URL

from domain.errors import StorageError
from store import database
from store.database import Database
from store.migration import _LOCK, migrate

pytestmark = pytest.mark.peer


@pytest.fixture
def url() -> Iterator[URL]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (make peers)")
    with postgres_server(programs) as server:
        yield make_url(f"{server}/postgres")


@pytest.fixture
def index(url: URL) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


def test_a_statement_without_an_answer_is_given_up_and_the_next_one_goes_elsewhere(
    index: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 1.0)
    with index.read() as connection:
        pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        # The pool tries the connection before it hands it out, and makes another
        with index.read() as connection:
            second = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            assert second != pid
            os.kill(second, signal.SIGSTOP)
            with pytest.raises(StorageError), index.read() as other:
                other.execute(text("SELECT pg_sleep(30)"))
            os.kill(second, signal.SIGCONT)
        assert time.monotonic() - began < 10
    finally:
        os.kill(pid, signal.SIGCONT)
    with index.write() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_migration_waits_for_another_one_however_long_that_takes(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.2)
    begun, ended = threading.Event(), threading.Event()

    def elsewhere() -> None:
        other = Database(url, is_patient=True)
        with other.write() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            begun.set()
            connection.execute(text("SELECT pg_sleep(1)"))
            ended.set()
        other.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert begun.wait(10)
    migrate(url)
    assert ended.is_set()
    thread.join()
