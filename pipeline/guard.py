"""What the pipeline wants of whoever watches over engines: a deadline, and a memory of what they died of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

MAX_CRASHES = 3
"""So often may an engine end its process on one job; kills from outside do not count."""


class EngineGuard(Protocol):
    """Watches over a running engine from another process."""

    def running(self, job_id: str, attempt: int, deadline_s: float) -> AbstractContextManager[None]:
        """Say that an engine is running: its process is killed when the block lasts longer than ``deadline_s``."""
        ...

    def crashes(self, job_id: str, attempt: int) -> Sequence[str]:
        """Return, in words, what ended engines on this attempt of the job by their own fault."""
        ...

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        ...


class Unguarded:
    """Nobody watches: an engine in the caller's own process."""

    @contextmanager
    def running(self, job_id: str, attempt: int, deadline_s: float) -> Iterator[None]:
        """Let it run."""
        yield

    def crashes(self, job_id: str, attempt: int) -> Sequence[str]:
        """Nothing is known."""
        return ()

    def forget(self, job_id: str) -> None:
        """There is nothing to forget."""
