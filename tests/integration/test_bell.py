"""Bells wake those who wait, in this process and in others, on one machine and through a PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from factories import ct_series
from sqlalchemy.engine import make_url
from working import working

from pipeline import server_bell
from pipeline.bell import TASKS, WITHOUT_S, Bell, FileBell, Seldom, bell

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 20.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "sqlite://" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@contextmanager
def listening(url: str, folder: Path, name: str = TASKS) -> Iterator[Bell]:
    found = bell(url, folder, name)
    found.listen()
    try:
        yield found
    finally:
        found.close()


def waited_s(waiter: Bell, timeout_s: float = LONG_S) -> float:
    began = time.monotonic()
    waiter.wait(timeout_s)
    return time.monotonic() - began


def test_a_ring_ends_the_wait_of_everybody_who_listens_for_that_name(url: str, tmp_path: Path) -> None:
    ringer = bell(url, tmp_path, TASKS)
    with listening(url, tmp_path) as one, listening(url, tmp_path) as two, listening(url, tmp_path, "other") as other:
        threading.Timer(0.2, ringer.ring).start()
        assert 0.1 < waited_s(one) < 5
        assert waited_s(two) < 5  # rung before it waited
        assert waited_s(other, 0.1) >= 0.1
        assert waited_s(one, 0.1) >= 0.1  # the ring is over
    ringer.close()


def test_a_ring_is_heard_in_another_process(url: str, tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from pipeline.bell import *; "
    program += "bell(sys.argv[1], Path(sys.argv[2]), TASKS).ring()"
    with listening(url, tmp_path) as waiter:
        command = [sys.executable, "-c", program, url, str(tmp_path)]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=60)
        assert waited_s(waiter) < 5


def test_the_waiter_alone_can_be_woken_and_a_closed_one_is_left_in_peace(url: str, tmp_path: Path) -> None:
    with listening(url, tmp_path) as one, listening(url, tmp_path) as two:
        threading.Timer(0.1, one.wake).start()
        assert waited_s(one) < 5
        assert waited_s(two, 0.1) >= 0.1
    one.wake()


def test_a_dead_listener_is_swept_by_who_rings(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from pipeline.bell import *; "
    program += "b = FileBell(Path(sys.argv[1])); b.listen(); print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        ringer = FileBell(tmp_path)
        ringer.ring()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    ringer.ring()
    assert list(tmp_path.iterdir()) == []


def test_a_bell_that_somebody_removed_is_hung_up_again(tmp_path: Path) -> None:
    with listening("sqlite://", tmp_path) as waiter:
        for path in (tmp_path / TASKS).iterdir():
            path.unlink()
        waited_s(waiter, 0.0)
        bell("sqlite://", tmp_path, TASKS).ring()
        assert waited_s(waiter) < 5


def test_who_cannot_be_rung_looks_often(tmp_path: Path) -> None:
    (tmp_path / TASKS).write_text("in the way")
    with listening("sqlite://", tmp_path) as waiter:
        assert waited_s(waiter) < 10 * WITHOUT_S
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
    with listening(nowhere, tmp_path) as waiter:
        waiter.ring()
        assert waited_s(waiter) < 10 * WITHOUT_S


def test_who_cannot_even_look_for_his_bell_looks_often(tmp_path: Path) -> None:
    too_long = FileBell(tmp_path / ("x" * 300))  # the system answers with an error, not with "there is none"
    too_long.listen()
    assert waited_s(too_long) < 10 * WITHOUT_S
    too_long.close()


def test_a_listener_that_lost_its_server_hears_again(postgres_url: str, tmp_path: Path) -> None:
    ringer = bell(postgres_url, tmp_path, TASKS)
    with listening(postgres_url, tmp_path) as waiter:
        ringer.ring()
        waiter.wait(LONG_S)
        plain = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as server:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert waited_s(waiter) < 5  # it notices
        deadline = time.monotonic() + LONG_S
        while waited_s(waiter, 0.5) < 0.4:  # until it is over that, and listens
            assert time.monotonic() < deadline
        ringer.ring()  # finds its connection dead, and makes another
        assert waited_s(waiter) < 5
    ringer.close()


def test_who_rings_does_not_wait_for_a_server_that_stands_still(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_bell, "_ANSWER_S", 0.5)
    ringer = bell(postgres_url, tmp_path, TASKS)
    ringer.ring()
    plain = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as server:
        asked = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_notify%' AND pid <> pg_backend_pid()"
        (pid,) = server.execute(asked).fetchone() or (0,)
    with listening(postgres_url, tmp_path) as waiter:
        os.kill(pid, signal.SIGSTOP)
        try:
            ringing = threading.Thread(target=ringer.ring, daemon=True)
            ringing.start()
            ringing.join(LONG_S)
            assert not ringing.is_alive()
            assert waited_s(waiter) < 5  # it went over another connection
        finally:
            os.kill(pid, signal.SIGCONT)
    ringer.close()


def test_rings_in_quick_succession_are_one() -> None:
    rung: list[int] = []
    ring = Seldom(lambda: rung.append(1), pause_s=0.2)
    for _ in range(100):
        ring()
    assert len(rung) == 1
    time.sleep(0.25)
    ring()
    assert len(rung) == 2


def test_the_watch_sleeps_until_something_arrives_and_ends_at_once(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        watch = work.watch
        watch._settings = replace(watch._settings, idle_s=600.0)
        stop = threading.Event()
        looking = threading.Thread(target=watch.run, args=(stop,))
        looking.start()
        try:
            time.sleep(1)  # past the first looks
            work.receive(ct_series(slices=3))
            work.clock.sleep(11)
            time.sleep(0.5)
            assert not work.queue.waiting  # nobody has told it
            FileBell(tmp_path / "bells").ring()
            deadline = time.monotonic() + LONG_S
            while not work.queue.waiting and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(work.queue.waiting) == 1
        finally:
            stop.set()
            looking.join(LONG_S)
        assert not looking.is_alive()
    assert not list((tmp_path / "bells").iterdir())
