"""Group commit: callers that come while one is writing are written together by the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from domain.errors import StorageError

Item = TypeVar("Item")


@dataclass(slots=True)
class _Ticket(Generic[Item]):
    items: Sequence[Item]
    done: bool = False
    error: Exception | None = None


class Groups(Generic[Item]):
    """Calls ``write`` for one group of items at a time.

    A database syncs once a transaction; under load many callers share that sync instead of queueing for it.
    """

    def __init__(self, write: Callable[[Sequence[Item]], None]) -> None:
        self._write = write
        self._waiting: list[_Ticket[Item]] = []
        self._list = threading.Lock()
        self._turn = threading.Lock()

    def run(self, items: Sequence[Item]) -> None:
        """Write ``items``, with whatever else waits; an error of the group is everybody's."""
        ticket = _Ticket(items)
        with self._list:
            self._waiting.append(ticket)
        with self._turn:
            if not ticket.done:
                with self._list:
                    group, self._waiting = self._waiting, []
                self._run(group)
        if ticket.error is not None:
            raise ticket.error

    def _run(self, group: list[_Ticket[Item]]) -> None:
        error: Exception | None = StorageError("Writing was interrupted")
        try:
            self._write([item for ticket in group for item in ticket.items])
            error = None
        except Exception as caught:  # carried to every caller that waits, and raised there
            error = caught
        finally:
            for ticket in group:
                ticket.done, ticket.error = True, error
