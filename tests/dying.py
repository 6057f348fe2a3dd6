"""A process that dies between two writes to the job log, as far as one process can play that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from working import Work

from pipeline.task import Task


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def dies_at(work: Work, number: int, monkeypatch: pytest.MonkeyPatch, writes: Sequence[str]) -> None:
    """Let the process die before the ``number``-th call of these methods of the job log, from 0."""
    left = number

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any, **values: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            write(*args, **values)

        return counted

    for name in writes:
        monkeypatch.setattr(work.store.jobs, name, dying(getattr(work.store.jobs, name)))


def recorded(work: Work, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Return a list that fills with the tasks as they begin."""
    ran: list[Task] = []
    run = work.steps.run

    def recording(task: Task) -> list[Task]:
        ran.append(task)
        return run(task)

    monkeypatch.setattr(work.steps, "run", recording)
    return ran
