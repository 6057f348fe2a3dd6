"""Who is at fault when a process ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gateway.crashes import CrashNotes, SupervisedEngine
from gateway.exits import OUT_OF_MEMORY, count_oom_kills, own_fault


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE])
def test_faults_of_the_program_are_its_own(number: signal.Signals) -> None:
    assert number.name in str(own_fault(-number, oom_kills=0))


def test_an_exit_status_is_its_own_and_an_orderly_end_is_no_fault() -> None:
    assert own_fault(1, oom_kills=0) == "it ended by itself with exit status 1"
    assert own_fault(0, oom_kills=0) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_that_somebody_sends_are_not(number: signal.Signals) -> None:
    assert own_fault(-number, oom_kills=0) is None


def test_the_kernels_kill_for_want_of_memory_is_its_own() -> None:
    assert own_fault(-signal.SIGKILL, oom_kills=1) == OUT_OF_MEMORY
    assert own_fault(-signal.SIGTERM, oom_kills=1) is None


def test_the_kernels_kills_can_be_counted() -> None:
    assert count_oom_kills() >= 0


def test_notes_are_kept_per_attempt_until_the_job_ends(tmp_path: Path) -> None:
    notes = CrashNotes(tmp_path)
    assert notes.of("j1", 1) == []
    for cause in ("one", "two"):
        notes.write("j1", 1, cause)
    notes.write("j1", 2, "three")
    notes.write("j10", 1, "other")
    assert sorted(notes.of("j1", 1)) == ["one", "two"]
    notes.forget("j1")
    assert (notes.of("j1", 1), notes.of("j1", 2), notes.of("j10", 1)) == ([], [], ["other"])


def test_an_engine_says_when_it_begins_and_that_it_has_ended_also_when_it_fails(tmp_path: Path) -> None:
    said: list[object] = []
    guard = SupervisedEngine(CrashNotes(tmp_path), said.append)
    with pytest.raises(ValueError, match="broken"), guard.running("j1", 2, 30):
        raise ValueError("broken")
    assert said == [{"began": {"job": "j1", "attempt": 2}, "deadline_s": 30}, {"ended": True}]
