"""What engines died of: small files in ``<store>/run/crashes``, written by supervisors, read at the next try."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.runfiles import run_folder


class CrashNotes:
    """Notes about crashes of engines, per attempt of a job. Safe for several processes on one folder."""

    def __init__(self, store: Path) -> None:
        self._folder = run_folder(store) / "crashes"

    def write(self, job_id: str, attempt: int, cause: str) -> None:
        """Note that the engine ended on this attempt by its own fault; on disk when this returns."""
        self._folder.mkdir(exist_ok=True)
        name = f"{job_id}-{attempt}-{secrets.token_hex(4)}"
        temporary = self._folder / f".{name}.tmp"
        with temporary.open("w") as file:
            json.dump({"cause": cause}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / f"{name}.json")

    def of(self, job_id: str, attempt: int) -> list[str]:
        """Return the causes on this attempt, in the order in which they were noted."""
        paths = self._folder.glob(f"{job_id}-{attempt}-*.json")
        return [str(json.loads(path.read_text())["cause"]) for path in sorted(paths, key=lambda p: p.stat().st_mtime)]

    def forget(self, job_id: str) -> None:
        """Remove the notes on all attempts of a job."""
        for path in self._folder.glob(f"{job_id}-*.json"):
            path.unlink(missing_ok=True)


class SupervisedEngine:
    """The ``EngineGuard`` of a supervised process: tells the supervisor, and reads what it noted."""

    def __init__(self, notes: CrashNotes, report: Callable[[Mapping[str, object]], None]) -> None:
        self._notes = notes
        self._report = report

    @contextmanager
    def running(self, job_id: str, attempt: int, deadline_s: float) -> Iterator[None]:
        """See ``EngineGuard.running``."""
        self._report({"began": {"job": job_id, "attempt": attempt}, "deadline_s": deadline_s})
        try:
            yield
        finally:
            self._report({"ended": True})

    def crashes(self, job_id: str, attempt: int) -> list[str]:
        """See ``EngineGuard.crashes``."""
        return self._notes.of(job_id, attempt)

    def forget(self, job_id: str) -> None:
        """See ``EngineGuard.forget``."""
        self._notes.forget(job_id)
