"""What a dead or frozen worker was doing is done by another one, once, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from pipeline.jobs import jobs_url, migrate
from pipeline.liveness import FileLocks, ServerLocks, new_executor_id

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import os, sys, time
from pathlib import Path
from pipeline.jobs import JobEngine, JobEngineSettings
from pipeline.liveness import liveness
from pipeline.takeover import Reaper
from pipeline.task import Task

folder, url, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def note(what):
    with (folder / "events").open("a") as file:
        file.write(f"{what} {name}\\n")

def run(task):
    note(f"begin {task.step}")
    end = time.monotonic() + float(sys.argv[4])
    while time.monotonic() < end and not (folder / "hurry").exists():
        time.sleep(0.02)
    note(f"end {task.step}")
    nexts = {"infer": "encode", "encode": "deliver"}
    if task.step not in nexts:
        return []
    return [Task(step=nexts[task.step], args=(*task.args[:2], 1), queue="cpu")]

locks = liveness(url, folder / "workers", name)
locks.keep()
engine = JobEngine(JobEngineSettings(url=url, executor_id=name, queues=("cpu",), bells=folder / "bells"), run)
engine.start()
Reaper(engine, locks, name, interval_s=0.2).start()
for number in range(int(sys.argv[5])):
    engine.enqueue(Task(step="infer", args=(f"job{number}", 1, 1), queue="cpu"))
note("ready")
while True:
    time.sleep(1)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    database = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    found = jobs_url(database, tmp_path)
    migrate(found)
    return found


class Workers:
    """Worker processes by name, and what they noted."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *, step_s: float, jobs: int = 0) -> None:
        arguments = [str(self._folder), self._url, name, str(step_s), str(jobs)]
        self._processes[name] = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )

    def send(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def hurry(self) -> None:
        (self._folder / "hurry").touch()

    @property
    def events(self) -> list[str]:
        file = self._folder / "events"
        return file.read_text().split("\n")[:-1] if file.exists() else []

    def wait_for(self, what: Callable[[list[str]], bool], seconds: float = 40) -> list[str]:
        deadline = time.monotonic() + seconds
        while not what(self.events):
            assert time.monotonic() < deadline, self.events
            time.sleep(0.02)
        return self.events


@contextmanager
def workers(folder: Path, url: str) -> Iterator[Workers]:
    found = Workers(folder, url)
    try:
        yield found
    finally:
        found.end()


def test_a_dead_workers_tasks_go_on_elsewhere_within_seconds(tmp_path: Path, url: str) -> None:
    with workers(tmp_path, url) as team:
        team.start("one", step_s=60, jobs=2)
        team.wait_for(lambda events: events.count("begin infer one") == 2)
        team.start("two", step_s=0)
        team.wait_for(lambda events: "ready two" in events)
        time.sleep(1)
        assert "begin infer two" not in team.events  # one lives
        team.send("one", signal.SIGKILL)
        killed = time.monotonic()
        events = team.wait_for(lambda events: events.count("end deliver two") == 2)
        assert time.monotonic() - killed < 12
    assert events.count("begin infer two") == 2
    assert events.count("end infer one") == 0


def test_a_restarted_worker_finds_what_its_former_life_was_doing(tmp_path: Path, url: str) -> None:
    with workers(tmp_path, url) as team:
        team.start("one", step_s=60, jobs=1)
        team.wait_for(lambda events: "begin infer one" in events)
        team.send("one", signal.SIGKILL)
        team.end()
        team.start("one-again", step_s=0)
        team.wait_for(lambda events: "end deliver one-again" in events)


def test_a_frozen_worker_that_was_replaced_enqueues_nothing_when_it_resumes(tmp_path: Path, url: str) -> None:
    with workers(tmp_path, url) as team:
        team.start("one", step_s=60, jobs=1)
        team.wait_for(lambda events: "begin infer one" in events)
        team.send("one", signal.SIGSTOP)
        _cut_off("one", url, tmp_path)
        team.start("two", step_s=0)
        team.wait_for(lambda events: "end deliver two" in events)
        team.hurry()
        team.send("one", signal.SIGCONT)
        team.wait_for(lambda events: "end infer one" in events)
        time.sleep(1)
        began = [event for event in team.events if event.startswith("begin")]
    assert sorted(began) == ["begin deliver two", "begin encode two", "begin infer one", "begin infer two"]


def _cut_off(name: str, url: str, folder: Path) -> None:
    """Let a worker that is only frozen look dead, as a machine does that has lost its network or its power."""
    if url.startswith("sqlite"):
        # On one machine a frozen process keeps its lock; only somebody's mistake can make it look dead.
        (folder / "workers" / f"{name}.alive").unlink()
        return
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(), autocommit=True) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


def test_two_workers_share_the_work_and_nothing_runs_twice(tmp_path: Path, url: str) -> None:
    with workers(tmp_path, url) as team:
        team.start("one", step_s=0.1, jobs=12)
        team.start("two", step_s=0.1)
        events = team.wait_for(lambda events: sum(e.startswith("end deliver") for e in events) == 12)
    assert {event.split()[-1] for event in events} == {"one", "two"}
    assert sum(event.startswith("begin") for event in events) == 36


def test_executors_have_names_of_their_own() -> None:
    assert len({new_executor_id("worker") for _ in range(100)}) == 100


def test_locks_of_files_tell_the_dead_and_are_swept(tmp_path: Path) -> None:
    one, two = FileLocks(tmp_path, "one"), FileLocks(tmp_path, "two")
    for lock in (one, two):
        lock.keep()
        lock.keep()
    assert not one.is_dead("two")
    assert one.sweep() == 0
    two.release()
    assert one.is_dead("two")
    (tmp_path / "killed.alive").touch()
    assert one.is_dead("killed")
    assert one.sweep() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one.alive"]


class Seconds:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_locks_of_a_server_doubt_before_they_judge(postgres_url: str) -> None:
    clock = Seconds()
    one = ServerLocks(postgres_url, "one", clock=clock)
    two = ServerLocks(postgres_url, "two")
    one.keep()
    two.keep()
    assert not one.is_dead("two")
    two.release()
    time.sleep(0.5)  # the server needs a moment to notice
    assert not one.is_dead("two")
    clock.now = 2.9
    assert not one.is_dead("two")
    clock.now = 3.0
    assert one.is_dead("two")
    one.release()


def test_nobody_is_judged_right_after_the_server_was_away(postgres_url: str, tmp_path: Path) -> None:
    clock = Seconds()
    one = ServerLocks(postgres_url, "one", clock=clock)
    one.keep()
    clock.now = 100.0
    assert not one.is_dead("gone")
    _cut_off("one", postgres_url, tmp_path)
    one.keep()
    assert not one.is_dead("gone")
    clock.now = 109.0
    assert not one.is_dead("gone")
    clock.now = 111.0
    assert not one.is_dead("gone")  # doubted now
    clock.now = 115.0
    assert one.is_dead("gone")
    one.release()
