"""The supervisor with children that do nothing but live and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.supervisor import CannotStart, ChildState, ChildStatus, ProcessSpec, Supervisor, SupervisorSettings

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import signal, sys, threading, os
from gateway.lifeline import Lifeline
line = Lifeline(int(sys.argv[-1]))
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
line.watch(stop)
line.report({"ready": {"port": 4711}})
stop.wait()
"""
STUBBORN = CHILD.replace("lambda *_: stop.set()", "signal.SIG_IGN")
BROKEN = """
import sys
from gateway.lifeline import Lifeline
Lifeline(int(sys.argv[-1])).report({"failed": "scp.port: port 11112 of 127.0.0.1 is in use"})
sys.exit(1)
"""
QUICK = SupervisorSettings(first_restart_s=0.05, max_restart_s=0.2, quick_s=0.5, stop_s=3)


def child(role: str, program: str = CHILD, stop_order: int = 0) -> ProcessSpec:
    return ProcessSpec(role=role, argv=(sys.executable, "-c", program), stop_order=stop_order)


class Running:
    """A supervisor in a thread, and everything that it told."""

    def __init__(self, specs: list[ProcessSpec], settings: SupervisorSettings = QUICK) -> None:
        self.told: list[tuple[ChildStatus, ...]] = []
        self.faults: list[tuple[object, str]] = []
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._supervisor = Supervisor(specs, settings, on_change=self.told.append, on_fault=self._at_fault)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _at_fault(self, what: Mapping[str, object], cause: str) -> None:
        self.faults.append((what["job"], cause))

    def _run(self) -> None:
        try:
            self._supervisor.run(self.stop)
        except CannotStart as error:
            self.error = error

    def until(
        self, condition: Callable[[tuple[ChildStatus, ...]], bool], timeout_s: float = 10
    ) -> tuple[ChildStatus, ...]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.told and condition(self.told[-1]):
                return self.told[-1]
            time.sleep(0.01)
        pytest.fail(f"did not happen; last: {self.told[-1:]}")

    def end(self) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def running(specs: list[ProcessSpec], settings: SupervisorSettings = QUICK) -> Iterator[Running]:
    run = Running(specs, settings)
    try:
        yield run
    finally:
        run.end()


def all_ready(statuses: tuple[ChildStatus, ...]) -> bool:
    return all(status.state is ChildState.READY for status in statuses)


def lives(pid: int | None) -> bool:
    assert pid is not None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(autouse=True)
def children_find_our_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_tells_what_a_child_serves() -> None:
    with running([child("scp")]) as run:
        (status,) = run.until(all_ready)
        assert status.facts == {"port": 4711}
        assert lives(status.pid)


def test_starts_a_killed_child_again_and_leaves_the_other_alone() -> None:
    with running([child("scp"), child("worker")]) as run:
        scp, worker = run.until(all_ready)
        assert scp.pid is not None
        os.kill(scp.pid, signal.SIGKILL)
        again, same = run.until(lambda told: all_ready(told) and told[0].restarts == 1)
        assert again.pid != scp.pid
        assert same.pid == worker.pid


def test_goes_on_restarting_once_everything_was_ready() -> None:
    with running([child("scp")]) as run:
        for restarts in range(7):
            (status,) = run.until(lambda told, n=restarts: all_ready(told) and told[0].restarts == n)  # type: ignore[misc]
            assert status.pid is not None
            os.kill(status.pid, signal.SIGKILL)
        run.until(lambda told: told[0].restarts == 7)
        assert run.error is None


def test_a_child_that_dies_for_hours_is_started_every_half_minute() -> None:
    delays = [SupervisorSettings().restart_delay_s(failures) for failures in (1, 2, 9, 2000)]
    assert delays == [0.2, 0.4, 30.0, 30.0]


def test_goes_on_while_no_process_can_be_started(tmp_path: Path) -> None:
    program = tmp_path / "part"
    program.write_text(f"#!{sys.executable}\n{CHILD}")
    program.chmod(0o700)
    with running([ProcessSpec(role="scp", argv=(str(program),)), child("worker")]) as run:
        scp, _ = run.until(all_ready)
        program.rename(tmp_path / "aside")
        assert scp.pid is not None
        os.kill(scp.pid, signal.SIGKILL)
        run.until(lambda told: told[0].state is ChildState.WAITING)
        time.sleep(0.3)
        (tmp_path / "aside").rename(program)
        run.until(lambda told: all_ready(told) and told[0].restarts == 1)


def test_sends_no_signal_to_the_number_of_a_child_that_died_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SupervisorSettings(first_restart_s=60, stop_s=3)
    with running([child("scp"), child("worker")], settings) as run:
        scp, _ = run.until(all_ready)
        assert scp.pid is not None
        os.kill(scp.pid, signal.SIGKILL)
        run.until(lambda told: told[0].state is ChildState.WAITING)
        signalled: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda group, number: signalled.append(group))
    assert scp.pid not in signalled


def test_gives_up_with_the_childs_own_words_when_it_never_starts() -> None:
    run = Running([child("scp", BROKEN), child("worker")])
    deadline = time.monotonic() + 20
    while run.error is None and time.monotonic() < deadline:
        time.sleep(0.02)
    run.end()
    assert str(run.error) == "scp.port: port 11112 of 127.0.0.1 is in use"
    assert not any(lives(status.pid) for status in run.told[-1] if status.pid)


def test_stops_receivers_before_workers(tmp_path: Path) -> None:
    said = tmp_path / "order"
    program = CHILD + "open(sys.argv[1], 'a').write(sys.argv[2] + ' ')\n"
    specs = [
        ProcessSpec(role=role, argv=(sys.executable, "-c", program, str(said), role), stop_order=order)
        for role, order in (("worker", 1), ("scp", 0))
    ]
    with running(specs) as run:
        run.until(all_ready)
    assert said.read_text().split() == ["scp", "worker"]


def test_kills_a_child_that_does_not_stop() -> None:
    with running([child("scp", STUBBORN)], SupervisorSettings(stop_s=0.3)) as run:
        (status,) = run.until(all_ready)
    assert not lives(status.pid)


def test_leaves_nothing_behind_that_a_child_had_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    program = CHILD.replace(
        'line.report({"ready"',
        "import subprocess; open(sys.argv[1], 'w').write(str(subprocess.Popen(['sleep', '60']).pid))\n"
        'line.report({"ready"',
    )
    with running([ProcessSpec(role="http", argv=(sys.executable, "-c", program, str(noted)))]) as run:
        (status,) = run.until(all_ready)
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        run.until(lambda told: all_ready(told) and told[0].restarts == 1)
    pid, deadline = int(noted.read_text()), time.monotonic() + 5
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(pid)


SUPERVISOR = """
import sys, threading
from gateway.supervisor import ProcessSpec, Supervisor
def tell(statuses):
    print(*(s.pid for s in statuses), all(s.state == "ready" for s in statuses), flush=True)
program = sys.argv[1]
specs = [ProcessSpec(role=r, argv=(sys.executable, "-c", program)) for r in ("scp", "worker")]
Supervisor(specs, on_change=tell).run(threading.Event())
"""


@pytest.mark.parametrize(
    "program",
    [
        CHILD.replace("line.watch", "from gateway.lifeline import die_with_parent; die_with_parent(); line.watch"),
        CHILD,
    ],
)
def test_children_are_gone_soon_after_their_supervisor_was_killed(program: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, program], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        line = next(line for line in supervisor.stdout if line.endswith("True\n"))
        pids = [int(word) for word in line.split()[:-1]]
        assert all(lives(pid) for pid in pids)
        supervisor.kill()
        deadline = time.monotonic() + 2
        while any(lives(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        left = [pid for pid in pids if lives(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left


def test_runs_a_preparation_to_its_end_and_tells_why_it_failed() -> None:
    Supervisor([child("prepare", "")]).run_once(threading.Event())
    with pytest.raises(CannotStart, match=r"is in use"):
        Supervisor([child("prepare", BROKEN)]).run_once(threading.Event())


ENGINE = """
import os, signal, sys, threading, time
from gateway.lifeline import Lifeline
line = Lifeline(int(sys.argv[-1]))
line.watch(threading.Event())
line.report({"ready": {}})
line.report({"began": {"job": "j1", "attempt": 1}, "deadline_s": DEADLINE})
END
time.sleep(60)
"""


def engine(end: str = "", deadline_s: float = 60.0) -> ProcessSpec:
    return child("infer", ENGINE.replace("END", end).replace("DEADLINE", str(deadline_s)))


def pid_of(statuses: tuple[ChildStatus, ...]) -> int:
    (status,) = statuses
    assert status.pid is not None
    return status.pid


def restarted(statuses: tuple[ChildStatus, ...]) -> bool:
    return statuses[0].restarts >= 1


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit status 3"),
    ],
)
def test_an_engine_that_ends_its_process_is_at_fault(end: str, cause: str) -> None:
    with running([engine(end)]) as run:
        run.until(restarted)
        job, said = run.faults[0]
        assert job == "j1"
        assert cause in said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_kill_from_outside_is_nobodys_fault(number: signal.Signals) -> None:
    with running([engine()]) as run:
        statuses = run.until(all_ready)
        time.sleep(0.2)
        os.kill(pid_of(statuses), number)
        run.until(restarted)
        assert run.faults == []


def test_an_engine_past_its_deadline_is_killed_and_at_fault() -> None:
    with running([engine(deadline_s=0.3)]) as run:
        run.until(restarted)
        assert run.faults[0] == ("j1", "it ran for longer than its deadline of 0.3 s")


def test_a_child_that_ends_after_its_work_is_nobodys_fault() -> None:
    with running([engine('line.report({"ended": True}); os.abort()')]) as run:
        run.until(restarted)
        assert run.faults == []


def test_a_child_that_stands_still_is_killed() -> None:
    beating = CHILD.replace("line.watch(stop)", "line.watch(stop); line.beat()")
    spec = ProcessSpec(role="worker", argv=(sys.executable, "-c", beating), silent_s=3.0)
    with running([spec]) as run:
        pid = pid_of(run.until(all_ready))
        time.sleep(4)
        assert not restarted(run.told[-1])
        os.kill(pid, signal.SIGSTOP)
        run.until(restarted)
