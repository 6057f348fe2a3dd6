"""Starts child processes, restarts those that die, stops them in order. Knows nothing about DICOM.

Each child gets one end of a socket pair. It reports over it what it serves; and since the other end lies in the
supervisor alone, the child reads its end of file the moment the supervisor is gone, whatever ended it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from domain.errors import GatewayError
from gateway.exits import count_oom_kills, own_fault

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 1.0
_HUNG_UP_S = 0.02
"""A process closes its files a moment before its parent can know that it has ended."""


class CannotStart(GatewayError):
    """A part of the gateway does not start."""


class ChildState(StrEnum):
    """How far a child has come."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """Died; will be started again."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One child: ``argv`` is followed by ``--lifeline FD``. Lower ``stop_order`` is stopped first."""

    role: str
    argv: tuple[str, ...]
    stop_order: int = 0
    silent_s: float | None = None
    """A ready child that has not said anything for so long, though nothing is running in it, is taken to hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """Times in seconds."""

    first_restart_s: float = 0.2
    max_restart_s: float = 30.0
    quick_s: float = 10.0
    """A child that lived for longer is restarted without more delay than the first."""
    max_failed_starts: int = 5
    """So often in a row may a child die before it was ready, until all parts have been ready once."""
    stop_s: float = 35.0
    """For each stop order; then what is left is killed."""

    def restart_delay_s(self, failures: int) -> float:
        """Return how long a child stays down that died ``failures`` (1, 2, …) times in a row."""
        return min(self.max_restart_s, self.first_restart_s * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStatus:
    """A child as the outside sees it."""

    role: str
    state: ChildState
    pid: int | None
    restarts: int
    facts: Mapping[str, object]
    """What it reported when it was ready, e.g. ``port``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a child said it is doing, in its own terms, and until when it may."""

    what: Mapping[str, object]
    until: float
    deadline_s: float
    oom_kills: int


@dataclass(slots=True, kw_only=True)
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    channel: socket.socket
    started_at: float
    state: ChildState = ChildState.STARTING
    facts: dict[str, object] = field(default_factory=dict)
    received: bytes = b""
    hung_up: bool = False
    """Its end of the channel is closed: it is gone, or will be in a moment."""
    said: str = ""
    """Why it could not start, in its own words."""
    failures: int = 0
    restarts: int = 0
    restart_at: float = 0.0
    heard_at: float = 0.0
    work: Work | None = None
    killed_for: str | None = None
    """Why the supervisor killed it; what it was doing is at fault."""


class Supervisor:
    """Runs the children until it is told to stop; belongs to the thread that calls ``run``.

    Linux ends a child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), which is why everything
    happens in one thread.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        settings: SupervisorSettings | None = None,
        *,
        on_change: Callable[[tuple[ChildStatus, ...]], None] = lambda statuses: None,
        on_fault: Callable[[Mapping[str, object], str], None] = lambda what, cause: None,
    ) -> None:
        """Make a supervisor; ``on_fault`` is told which work ended its own process, and how."""
        self._specs = tuple(specs)
        self._settings = settings or SupervisorSettings()
        self._on_change = on_change
        self._on_fault = on_fault
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._stopping, self._told_to_stop = socket.socketpair()
        self._all_were_ready = False

    def run(self, stop: threading.Event, *, at_once: threading.Event | None = None) -> None:
        """Block until ``stop`` is set and every child is gone; ``at_once`` cuts the waiting short.

        Raises
        ------
        CannotStart
            A child failed again and again before all had been ready for the first time.
        """
        try:
            for spec in self._specs:
                self._children.append(self._start(spec))
            self._changed()
            self._selector.register(self._told_to_stop, selectors.EVENT_READ)
            threading.Thread(target=self._wake_at, args=(stop,), name="stop", daemon=True).start()
            while not stop.is_set():
                self._listen(self._pause_s())
                self._look_after()
        finally:
            self._stop_all(at_once or threading.Event())
            self._close()

    def run_once(self, stop: threading.Event) -> None:
        """Run the children one after the other, each to its end; ``stop`` ends the running one.

        Raises
        ------
        CannotStart
            A child ended in failure.
        """
        try:
            for spec in self._specs:
                child = self._start(spec)
                self._children.append(child)
                while child.process.poll() is None and not stop.is_set():
                    self._listen(0.02)
                self._read(child)
                if child.process.returncode and not stop.is_set():
                    raise CannotStart(child.said or f"{spec.role} failed; see the log")
        finally:
            self._stop_all(stop)
            self._close()

    def statuses(self) -> tuple[ChildStatus, ...]:
        """Return how the children are."""
        return tuple(
            ChildStatus(
                role=child.spec.role,
                state=child.state,
                pid=child.process.pid if child.process.returncode is None else None,
                restarts=child.restarts,
                facts=dict(child.facts),
            )
            for child in self._children
        )

    def _wake_at(self, stop: threading.Event) -> None:
        """End the wait for what children say; a signal's handler runs, but the wait goes on."""
        stop.wait()
        with contextlib.suppress(OSError):  # closed: it ended by itself
            self._stopping.send(b"s")

    def _close(self) -> None:
        self._selector.close()
        self._stopping.close()
        self._told_to_stop.close()

    def _changed(self) -> None:
        self._on_change(self.statuses())

    # -- life -------------------------------------------------------------------------------------------------------

    def _start(self, spec: ProcessSpec) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            # A session of its own: Ctrl-C reaches the supervisor only, which then stops the parts in order; and
            # whatever the child starts can be ended with it.
            process = subprocess.Popen(
                [*spec.argv, "--lifeline", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            undo.pop_all()
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ)
        log.info("process started", extra={"role": spec.role, "pid": process.pid})
        return _Child(spec=spec, process=process, channel=ours, started_at=time.monotonic())

    def _pause_s(self) -> float:
        """Return how long there is nothing to do unless a child says something: its death ends the wait too."""
        now = time.monotonic()
        return max(0.0, min([now + _LONGEST_PAUSE_S, *map(self._due_at, self._children)]) - now)

    def _due_at(self, child: _Child) -> float:
        if child.state is ChildState.WAITING:
            return child.restart_at
        if child.hung_up:
            return time.monotonic() + _HUNG_UP_S
        if child.state is not ChildState.READY:
            return math.inf
        if child.work is not None:
            return child.work.until
        return child.heard_at + child.spec.silent_s if child.spec.silent_s is not None else math.inf

    def _look_after(self) -> None:
        for child in self._children:
            if child.state is ChildState.WAITING:
                if time.monotonic() >= child.restart_at:
                    self._restart(child)
            elif child.process.poll() is not None:
                self._died(child)
            elif child.state is ChildState.READY:
                self._watch(child)

    def _watch(self, child: _Child) -> None:
        """Kill a child that hangs, also in native code that lets nothing else of it run, or stopped by a signal."""
        now, work, silent_s = time.monotonic(), child.work, child.spec.silent_s
        if work is not None and now >= work.until:
            self._kill(child, f"it ran for longer than its deadline of {work.deadline_s:g} s")
        elif work is None and silent_s is not None and now - child.heard_at >= silent_s:
            self._kill(child, None)

    def _kill(self, child: _Child, cause: str | None) -> None:
        log.error("process hangs and is killed", extra={"role": child.spec.role, "pid": child.process.pid})
        child.killed_for = cause
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self._died(child)

    def _note_fault(self, child: _Child) -> None:
        """Tell what a child was doing when it ended by its own fault; other ends are nobody's."""
        if child.work is None:
            return
        oom_kills = count_oom_kills() - child.work.oom_kills
        cause = child.killed_for or own_fault(child.process.returncode, oom_kills=oom_kills)
        if cause is not None:
            self._on_fault(child.work.what, cause)

    def _died(self, child: _Child) -> None:
        self._read(child)
        self._note_fault(child)
        self._bury(child)
        lived_s = time.monotonic() - child.started_at
        was_ready = child.state is ChildState.READY
        child.failures = 1 if was_ready and lived_s >= self._settings.quick_s else child.failures + 1
        if not self._all_were_ready and not was_ready and child.failures >= self._settings.max_failed_starts:
            raise CannotStart(child.said or f"{child.spec.role} ends before it is ready; see the log")
        delay_s = self._settings.restart_delay_s(child.failures)
        child.restart_at = time.monotonic() + delay_s
        child.state, child.facts = ChildState.WAITING, {}
        log.error(
            "process died",
            extra={
                "role": child.spec.role,
                "exit_status": child.process.returncode,
                "lived_s": lived_s,
                "restart_in_s": delay_s,
                "why": child.said,
            },
        )
        self._changed()

    def _bury(self, child: _Child) -> None:
        """Take away what a dead child left: processes that it had started, and our end of its line."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        child.channel.close()

    def _restart(self, child: _Child) -> None:
        try:
            fresh = self._start(child.spec)
        except OSError as error:  # no memory, too many processes or open files: the other parts must go on
            child.failures += 1
            child.restart_at = time.monotonic() + self._settings.restart_delay_s(child.failures)
            log.error("process cannot be started", extra={"role": child.spec.role, "errno": error.errno})  # noqa: TRY400
            return
        fresh.failures, fresh.restarts = child.failures, child.restarts + 1
        self._children[self._children.index(child)] = fresh
        self._changed()

    # -- what children say ------------------------------------------------------------------------------------------

    def _listen(self, timeout_s: float) -> None:
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        heard = {key.fileobj for key, _ in self._selector.select(timeout_s)}
        for child in self._children:
            if child.channel in heard:
                self._read(child)

    def _read(self, child: _Child) -> None:
        """Take in what a child reported: JSON lines.

        ``{"ready": {…}}``, ``{"failed": "…"}``, ``{"began": {…}, "deadline_s": …}``, ``{"ended": true}``, and
        ``{"alive": true}`` for nothing but to be heard.
        """
        with contextlib.suppress(OSError, KeyError):  # nothing to read now; unregistered before
            while chunk := child.channel.recv(65536):
                child.received += chunk
            # End of file: the child closed its end or is gone; poll() tells which.
            child.hung_up = True
            self._selector.unregister(child.channel)
        *lines, child.received = child.received.split(b"\n")
        for line in lines:
            self._heard(child, json.loads(line))

    def _heard(self, child: _Child, report: Mapping[str, object]) -> None:
        child.heard_at = time.monotonic()
        began, deadline_s = report.get("began"), report.get("deadline_s")
        if isinstance(began, dict) and isinstance(deadline_s, int | float):
            until = child.heard_at + deadline_s
            child.work = Work(what=began, until=until, deadline_s=deadline_s, oom_kills=count_oom_kills())
        elif "ended" in report:
            child.work = None
        ready = report.get("ready")
        if isinstance(ready, dict):
            child.state, child.facts = ChildState.READY, ready
            log.info("process ready", extra={"role": child.spec.role, "pid": child.process.pid, "serves": ready})
            self._all_were_ready = self._all_were_ready or all(c.state is ChildState.READY for c in self._children)
            self._changed()
        if "failed" in report:
            child.said = str(report["failed"])

    # -- the end ----------------------------------------------------------------------------------------------------

    def _stop_all(self, at_once: threading.Event) -> None:
        for order in sorted({child.spec.stop_order for child in self._children}):
            group = [child for child in self._children if child.spec.stop_order == order]
            self._stop_group(group, at_once)
        if self._children:
            self._changed()

    def _stop_group(self, group: Sequence[_Child], at_once: threading.Event) -> None:
        for child in group:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.stop_s
        while time.monotonic() < deadline and not at_once.is_set():
            if all(child.process.poll() is not None for child in group):
                break
            at_once.wait(0.05)
        for child in group:
            if child.process.poll() is None:
                log.warning("process killed", extra={"role": child.spec.role})
                child.process.kill()
            child.process.wait()
            if child.state is not ChildState.WAITING:  # buried when it died; its number may be a stranger's by now
                self._bury(child)
            child.state = ChildState.STOPPED
