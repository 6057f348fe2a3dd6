"""The desk where requests wait for the worker."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from inference.desk import Busy, Desk, TimedOut
from inference.wsgi import client_gone


def _in_threads(*asks: threading.Thread) -> None:
    for ask in asks:
        ask.start()
        time.sleep(0.02)  # so that they arrive in this order


def test_clients_take_turns_whoever_sent_how_much() -> None:
    desk, begin, order = Desk(20), threading.Event(), list[str]()

    def ask(client: str, name: str) -> threading.Thread:
        def work(cancelled: object) -> str:
            begin.wait(5)
            order.append(name)
            return name

        return threading.Thread(target=lambda: desk.ask(client, work, timeout_s=10))

    asks = [ask("one", "first"), ask("one", "a"), ask("one", "b"), ask("one", "c"), ask("two", "x"), ask("two", "y")]
    _in_threads(*asks)
    begin.set()
    for thread in asks:
        thread.join()
    assert order == ["first", "a", "x", "b", "y", "c"]


def test_a_full_desk_takes_nothing_more() -> None:
    desk, begin = Desk(1), threading.Event()
    working = [threading.Thread(target=lambda: desk.ask("a", lambda c: begin.wait(5), timeout_s=5)) for _ in range(2)]
    _in_threads(*working)
    with pytest.raises(Busy):
        desk.ask("b", lambda cancelled: 1, timeout_s=5)
    begin.set()
    for thread in working:
        thread.join()
    assert desk.ask("b", lambda cancelled: 1, timeout_s=5) == 1


@pytest.mark.parametrize(("timeout_s", "is_gone"), [(0.1, False), (10.0, True)])
def test_work_that_nobody_waits_for_is_told_so(timeout_s: float, is_gone: bool) -> None:
    desk, told = Desk(3), threading.Event()

    def work(cancelled: object) -> int:
        assert callable(cancelled)
        for _ in range(500):
            if cancelled():
                told.set()
                return 0
            time.sleep(0.01)
        return 1

    with pytest.raises(TimedOut):
        desk.ask("a", work, timeout_s=timeout_s, is_gone=lambda: is_gone)
    assert told.wait(5)


def test_an_error_reaches_the_one_who_asked_and_the_worker_goes_on() -> None:
    desk = Desk(3)

    def broken(cancelled: object) -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        desk.ask("a", broken, timeout_s=5)
    assert desk.ask("a", lambda cancelled: 2, timeout_s=5) == 2


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_a_closed_connection_is_seen(key: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        gone = client_gone({key: ours})
        assert not gone()
        theirs.send(b"the next request")
        assert not gone()
        ours.recv(100)
        theirs.close()
        assert gone()


def test_a_server_that_shows_no_connection_sees_nobody_go() -> None:
    assert not client_gone({})()


@dataclass
class Noted:
    """Work that may be done together with other of its kind; notes who was."""

    name: str
    done: list[list[str]]
    kind: object = "words"
    room: int = 8
    fault: Exception | None = None
    breaks: bool = False

    def most(self) -> int:
        return self.room

    def together(self, works: Sequence[tuple[Any, Callable[[], bool]]]) -> Iterator[tuple[int, str | Exception]]:
        self.done.append([work.name for work, _ in works])
        for number in reversed(range(len(works))):
            work = works[number][0]
            if work.breaks:
                raise ValueError(work.name)
            yield number, work.fault or f"answer to {work.name}"


def _asked(desk: Desk, *works: tuple[str, Noted]) -> list[Future[str]]:
    """Ask in this order while the worker is busy; return what comes of it."""
    begin = threading.Event()
    pool = ThreadPoolExecutor(20)
    pool.submit(desk.ask, "first", lambda cancelled: begin.wait(5), timeout_s=5)
    time.sleep(0.05)
    asks = []
    for client, work in works:
        asks.append(pool.submit(desk.ask, client, work, timeout_s=5))
        time.sleep(0.02)
    begin.set()
    pool.shutdown()
    return asks


def test_what_waits_and_is_of_one_kind_is_done_together_each_with_its_own_answer() -> None:
    done: list[list[str]] = []
    asks = _asked(Desk(20), *[(f"client {n}", Noted(str(n), done, room=3)) for n in range(5)])
    assert [ask.result() for ask in asks] == [f"answer to {n}" for n in range(5)]
    assert done == [["0", "1", "2"], ["3", "4"]]


def test_nobody_is_overtaken_by_what_goes_together() -> None:
    done: list[list[str]] = []
    other = Noted("other", done, kind="volumes")
    _asked(Desk(20), ("a", Noted("a", done)), ("b", Noted("b", done)), ("c", other), ("d", Noted("d", done)))
    assert done == [["a", "b"], ["other"], ["d"]]


def test_clients_take_turns_in_what_goes_together_too() -> None:
    done: list[list[str]] = []
    _asked(Desk(20), *[("one", Noted(str(n), done, room=2)) for n in range(4)], ("two", Noted("x", done, room=2)))
    assert done == [["0", "x"], ["1", "2"], ["3"]]


def test_a_fault_of_one_is_told_to_that_one() -> None:
    done: list[list[str]] = []
    broken = Noted("broken", done, fault=ValueError("no"))
    asks = _asked(Desk(20), ("a", Noted("a", done)), ("b", broken), ("c", Noted("c", done)))
    assert [ask.result() for ask in (asks[0], asks[2])] == ["answer to a", "answer to c"]
    with pytest.raises(ValueError, match="no"):
        asks[1].result()
    assert done == [["a", "broken", "c"]]


def test_what_breaks_off_is_told_to_those_who_have_no_answer_yet() -> None:
    done: list[list[str]] = []
    asks = _asked(Desk(20), ("a", Noted("a", done)), ("b", Noted("b", done, breaks=True)), ("c", Noted("c", done)))
    assert asks[2].result() == "answer to c"
    for ask in asks[:2]:
        with pytest.raises(ValueError, match="b"):
            ask.result()


def test_who_has_gone_before_the_turn_is_not_worked_for() -> None:
    done: list[list[str]] = []
    desk, begin = Desk(20), threading.Event()
    with ThreadPoolExecutor(4) as pool:
        pool.submit(desk.ask, "first", lambda cancelled: begin.wait(5), timeout_s=5)
        time.sleep(0.05)
        stays = pool.submit(desk.ask, "a", Noted("a", done), timeout_s=5)
        time.sleep(0.05)
        with pytest.raises(TimedOut):
            desk.ask("b", Noted("b", done), timeout_s=0.05)
        begin.set()
        assert stays.result() == "answer to a"
    assert done == [["a"]]


@pytest.mark.parametrize(("gather_s", "expected"), [(0.0, [["a"], ["b"]]), (2.0, [["a", "b"]])])
def test_it_waits_for_company_as_long_as_it_was_told(gather_s: float, expected: list[list[str]]) -> None:
    done: list[list[str]] = []
    desk = Desk(20, gather_s)
    with ThreadPoolExecutor(2) as pool:
        asks = [pool.submit(desk.ask, "a", Noted("a", done, room=2), timeout_s=5)]
        time.sleep(0.1)
        asks.append(pool.submit(desk.ask, "b", Noted("b", done, room=1 if gather_s == 0 else 2), timeout_s=5))
    assert [ask.result() for ask in asks] == ["answer to a", "answer to b"]
    assert done == expected
