"""Where requests wait for the one worker of a device: bounded, and fair between clients."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from domain.errors import EngineUnavailable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Work = Callable[[Callable[[], bool]], T]
_LOOK_S = 0.25
_GONE = "Nobody waits for the answer any more."


class Busy(EngineUnavailable):
    """Too many requests wait already."""


class TimedOut(EngineUnavailable):
    """The answer took longer than a request may."""


class Joint(Protocol[T_co]):
    """Work that may be done together with other work of the same ``kind``; used in the worker alone."""

    @property
    def kind(self) -> object:
        """Return what equals that of the work that it may be done with."""
        ...

    def most(self) -> int:
        """Return how many may be done at once."""
        ...

    def together(self, works: Sequence[tuple[Any, Callable[[], bool]]]) -> Iterator[tuple[int, T_co | Exception]]:
        """Do works of this kind, this one the first; yield what came of each, by its number, when it is there.

        Each comes with a function that tells whether nobody waits for it.
        """
        ...


class _Alone(Generic[T]):
    """Work that goes with no other."""

    kind = None

    def __init__(self, work: Work[T]) -> None:
        self._work = work

    def most(self) -> int:
        return 1

    def together(self, works: Sequence[tuple[Any, Callable[[], bool]]]) -> Iterator[tuple[int, T | Exception]]:
        for number, (_, is_gone) in enumerate(works):
            yield number, self._work(is_gone)


class _Ticket(Generic[T]):
    def __init__(self, work: Joint[T]) -> None:
        self.work = work
        self._gone = threading.Event()
        self._done = threading.Event()
        self._answer: T | None = None
        self._error: BaseException | None = None

    def withdraw(self) -> None:
        self._gone.set()

    def is_gone(self) -> bool:
        return self._gone.is_set()

    def goes_with(self, other: _Ticket[Any]) -> bool:
        return self.work.kind is not None and self.work.kind == other.work.kind

    def settle(self, answer: T | BaseException | None) -> None:
        """End with what came of the work, once; ``None``: it was not done, as nobody waits for it."""
        if self._done.is_set():
            return
        if isinstance(answer, BaseException):
            self._error = answer
        else:
            self._answer = answer
        self._done.set()

    def is_done(self, wait_s: float) -> bool:
        return self._done.wait(wait_s)

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise TimedOut(_GONE)
        return self._answer


class Desk:
    """One worker thread, started with the first request; it ends with the process.

    Parameters
    ----------
    most
        Requests that may wait.
    gather_s
        How long work that may be done together with other waits for such; never for any where others wait.
    """

    def __init__(self, most: int, gather_s: float = 0.0) -> None:
        self._most = most
        self._gather_s = gather_s
        self._waiting: OrderedDict[str, deque[_Ticket[object]]] = OrderedDict()
        self._arrived = threading.Condition()
        self._worker: threading.Thread | None = None

    def ask(
        self,
        client: str,
        work: Work[T] | Joint[T],
        *,
        timeout_s: float,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> T:
        """Have ``work`` done in the worker and return what it returns; blocks.

        Clients take turns, whoever sent how much. ``work`` is given a function that tells whether nobody waits. Joint
        work is done with what is next in turn, as far as that is of its kind: nobody is overtaken.

        Raises
        ------
        Busy
            Nothing was queued.
        TimedOut
            The time is over, or the client is gone; the work is withdrawn.
        """
        ticket: _Ticket[T] = _Ticket(_Alone(work) if callable(work) else work)
        self._queue(client, ticket)
        end = time.monotonic() + timeout_s
        while not ticket.is_done(min(_LOOK_S, max(0.0, end - time.monotonic()))):
            is_late = time.monotonic() >= end
            if is_late or is_gone():
                ticket.withdraw()
                raise TimedOut(
                    f"There was no answer within {timeout_s:g} s ([predict] timeout_s)." if is_late else _GONE
                )
        return ticket.answer()

    def check_room(self) -> None:
        """Raise ``Busy`` where nothing can be queued now: before something is decoded that must be sent again."""
        with self._arrived:
            if sum(map(len, self._waiting.values())) >= self._most:
                raise Busy(f"{self._most} requests wait already ([predict] queue).")

    def _queue(self, client: str, ticket: _Ticket[T]) -> None:
        with self._arrived:
            self.check_room()
            self._waiting.setdefault(client, deque()).append(ticket)  # type: ignore[arg-type]
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="predict", daemon=True)
                self._worker.start()
            self._arrived.notify()

    def _work(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting)
                tickets = [self._next()]
            try:
                self._do(tickets)
                fault = None
            except BaseException as error:
                fault = error
            for ticket in tickets:
                ticket.settle(fault)

    def _next(self) -> _Ticket[Any]:
        """Take the ticket whose turn it is; its client goes to the end of the row."""
        client, tickets = self._waiting.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self._waiting[client] = tickets
        return ticket

    def _do(self, tickets: list[_Ticket[Any]]) -> None:
        """Do the work of the one ticket, and of those that join it."""
        first = tickets[0]
        if not first.is_gone():
            self._join(tickets, first.work.most())
        asked = [ticket for ticket in tickets if not ticket.is_gone()]
        if asked:
            for number, answer in asked[0].work.together([(item.work, item.is_gone) for item in asked]):
                asked[number].settle(answer)

    def _join(self, tickets: list[_Ticket[Any]], most: int) -> None:
        """Add what is next in turn, as far as it is of the first one's kind."""
        end = time.monotonic() + self._gather_s
        with self._arrived:
            while len(tickets) < most:
                if not self._arrived.wait_for(lambda: self._waiting, max(0.0, end - time.monotonic())):
                    return
                following = next(iter(self._waiting.values()))[0]
                if not following.goes_with(tickets[0]):
                    return
                tickets.append(self._next())
