"""HTTP peers that send a request byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from factories import ct_series
from http_process import LiveServer, live_server
from stow_bodies import RELATED, multipart, part10

_HEAD = (
    f"POST /dicomweb/studies HTTP/1.1\r\nHost: gateway\r\nContent-Type: {RELATED}\r\nContent-Length: 500000\r\n\r\n"
).encode()
_BODY = _HEAD + multipart([b"x" * 20_000])[:3000]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Dripping:
    """Connections that send ``start`` and then a byte every fifth of a second, until they are closed."""

    def __init__(self, port: int, count: int, start: bytes) -> None:
        self.cut = 0
        self._over = threading.Event()
        self._peers = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]
        for peer in self._peers:
            peer.sendall(start)
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self) -> None:
        while not self._over.wait(0.2):
            for peer in list(self._peers):
                try:
                    peer.sendall(b"G")
                except OSError:
                    self.cut += 1
                    self._peers.remove(peer)
                    peer.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for peer in self._peers:
            peer.close()


@contextmanager
def dripping(server: LiveServer, count: int, start: bytes) -> Iterator[Dripping]:
    peers = Dripping(server.port, count, start)
    try:
        yield peers
    finally:
        peers.close()


def health(server: LiveServer) -> int:
    return requests.get(f"http://127.0.0.1:{server.port}/health", timeout=20).status_code


def test_peers_that_never_finish_their_first_line_do_not_keep_others_out(tmp_path: Path) -> None:
    with (
        live_server(tmp_path, "--threads", "2", "--idle-timeout", "2") as server,
        dripping(server, 4, b""),
    ):
        time.sleep(0.5)
        began = time.monotonic()
        assert health(server) == 200
        assert time.monotonic() - began < 10


def test_eighty_slow_peers_keep_nobody_out_and_leave_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    file = part10(ct_series(1)[0])
    with ExitStack() as stack:
        server = stack.enter_context(live_server(tmp_path, "--sink", str(kept)))
        bodies = stack.enter_context(dripping(server, 40, _BODY))
        heads = stack.enter_context(dripping(server, 40, b"POST "))
        time.sleep(0.5)
        began = time.monotonic()
        assert health(server) == 200
        alive = time.monotonic() - began
        answer = requests.post(server.studies, data=multipart([file]), headers={"Content-Type": RELATED}, timeout=20)
        took = time.monotonic() - began
        print(f"health after {alive:.1f} s, stored after {took:.1f} s; cut: {bodies.cut} bodies, {heads.cut} heads")
        assert answer.status_code == 200
        assert took < 10
        assert bodies.cut >= 32, "the threads were not taken: the test tests nothing"
        deadline = time.monotonic() + 10
        while heads.cut < 40:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [path.read_bytes() for path in kept.iterdir()] == [file]


def test_a_slow_body_is_told_why_it_is_cut_off(tmp_path: Path) -> None:
    with (
        live_server(tmp_path, "--threads", "1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=15) as slow,
    ):
        slow.sendall(_BODY)
        time.sleep(0.3)
        assert health(server) == 200
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "slow http peers cut off" in server.log.read_text()
