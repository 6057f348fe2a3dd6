"""Where requests wait for the one worker of a device: bounded, and fair between clients."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from domain.errors import EngineUnavailable

T = TypeVar("T")
_LOOK_S = 0.25


class Busy(EngineUnavailable):
    """Too many requests wait already."""


class TimedOut(EngineUnavailable):
    """The answer took longer than a request may."""


class _Ticket(Generic[T]):
    def __init__(self, work: Callable[[Callable[[], bool]], T]) -> None:
        self._work = work
        self._gone = threading.Event()
        self._done = threading.Event()
        self._answer: T | None = None
        self._error: BaseException | None = None

    def withdraw(self) -> None:
        self._gone.set()

    def run(self) -> None:
        if not self._gone.is_set():
            try:
                self._answer = self._work(self._gone.is_set)
            except BaseException as error:
                self._error = error
        self._done.set()

    def is_done(self, wait_s: float) -> bool:
        return self._done.wait(wait_s)

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise TimedOut
        return self._answer


class Desk:
    """One worker thread, started with the first request; it ends with the process.

    Parameters
    ----------
    most
        Requests that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: OrderedDict[str, deque[_Ticket[object]]] = OrderedDict()
        self._arrived = threading.Condition()
        self._worker: threading.Thread | None = None

    def ask(
        self,
        client: str,
        work: Callable[[Callable[[], bool]], T],
        *,
        timeout_s: float,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> T:
        """Have ``work`` done in the worker and return what it returns; blocks.

        Clients take turns, whoever sent how much. ``work`` is given a function that tells whether nobody waits.

        Raises
        ------
        Busy
            Nothing was queued.
        TimedOut
            The time is over, or the client is gone; the work is withdrawn.
        """
        ticket: _Ticket[T] = _Ticket(work)
        self._queue(client, ticket)
        end = time.monotonic() + timeout_s
        while not ticket.is_done(min(_LOOK_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end or is_gone():
                ticket.withdraw()
                raise TimedOut
        return ticket.answer()

    def _queue(self, client: str, ticket: _Ticket[T]) -> None:
        with self._arrived:
            if sum(map(len, self._waiting.values())) >= self._most:
                raise Busy
            self._waiting.setdefault(client, deque()).append(ticket)  # type: ignore[arg-type]
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="predict", daemon=True)
                self._worker.start()
            self._arrived.notify()

    def _work(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting)
                client, tickets = self._waiting.popitem(last=False)
                ticket = tickets.popleft()
                if tickets:
                    self._waiting[client] = tickets  # to the end of the row
            ticket.run()
