"""The desk where requests wait for the worker."""

from __future__ import annotations

import socket
import threading
import time

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
