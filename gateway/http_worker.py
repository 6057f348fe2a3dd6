"""gunicorn's worker with limits that it lacks: how long a head may take, and how slowly a body may come."""

from __future__ import annotations

import contextlib
import logging
import mmap
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.workers.gthread import ThreadWorker

log = logging.getLogger(__name__)

HEAD_S = 5.0
"""A head is a few hundred bytes. A peer that sends it byte by byte would otherwise hold a thread for ever."""
WINDOW_S = 30.0
"""The least time over which the rate of a body is averaged."""
CROWDED_S = 2.0
"""What a slow peer gets while others wait for a thread: its packet may be lost and sent again."""
_LOOK_S = 0.25
_LEAST_BYTES = 64 << 10
"""Of a body, handed on at a time: to take it in smaller pieces costs more than to wait for more."""
_LEFT_S = 0.001
_LEFT_TIMES = 20
"""For so long a process leaves a new connection to one that has fewer, which may hang."""
_LINGER_MS = 10
"""How long a thread waits for the next request on its connection, before it hands the connection back to the loop."""


class BodyMeter:
    """The socket of a request whose body is read; knows how long the peer let it wait, and for how much.

    Only the time in ``recv`` counts: what the store takes to write is not the peer's fault.
    """

    def __init__(
        self,
        peer: socket.socket,
        *,
        min_bytes_s: float,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peer = peer
        self._min_bytes_s = min_bytes_s
        self._window_s = window_s
        self._clock = clock
        self._given_up = False
        # Written by the thread that reads the body.
        self._since: float | None = None
        self._waited = 0.0
        self._received = 0
        # Written by the thread that judges: what had been waited and received when the window began.
        self._window = (0.0, 0)

    def recv(self, size: int) -> bytes:
        """Return what has come, as a socket does; raise ``TimeoutError`` once the peer is given up."""
        began = self._since = self._clock()
        try:
            data = self._peer.recv(size)
        finally:
            self._since = None
            self._waited += self._clock() - began
        if self._given_up:
            raise TimeoutError("the body came too slowly")
        self._received += len(data)
        return data

    def is_too_slow(self, *, crowded: bool) -> bool:
        """Judge the rate over the window, or where others wait for a thread over the whole body so far."""
        since = self._since
        if since is None:
            return False
        waited, received = self._waited + self._clock() - since, self._received
        if crowded and waited >= CROWDED_S and received < self._min_bytes_s * waited:
            return True
        window_waited, window_received = waited - self._window[0], received - self._window[1]
        if window_waited < self._window_s:
            return False
        self._window = (waited, received)
        return window_received < self._min_bytes_s * window_waited

    def give_up(self) -> None:
        """Wake the thread that reads; the peer can still be answered."""
        self._given_up = True
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RD)


class PromptBody(Body):
    """The body of a request whose length is known, that can be read as it comes.

    gunicorn's own ``read`` gathers all that was asked for, and copies it four times on the way.
    """

    def read1(self, size: int) -> bytes:
        """Return what has come, but not much less than ``_LEAST_BYTES`` or ``size``; nothing at the end."""
        if rest := self.buf.tell():  # of an earlier ``read``
            return bytes(self.read(min(size, rest)))  # type: ignore[no-untyped-call]
        if held := self.reader.unreader.buf.tell():  # came with the head of the request
            return bytes(self.reader.read(min(size, held)))
        try:
            data = self._received(min(size, self.reader.length))
        except Exception:
            self.failed = True  # gunicorn must not look for another request behind it
            raise
        self.reader.length -= len(data)
        return data

    def _received(self, size: int) -> bytes:
        peer, pieces, missing = self.reader.unreader.sock, list[bytes](), size
        while missing > 0 and size - missing < _LEAST_BYTES:
            piece = peer.recv(missing)
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


class Connections:
    """How many connections each process has, in memory that they share."""

    _ABSENT = 255

    def __init__(self) -> None:
        self._counts = mmap.mmap(-1, mmap.PAGESIZE)  # far more than there are processes: their ages grow
        self._counts[:] = bytes([self._ABSENT]) * mmap.PAGESIZE

    def note(self, age: int, count: int | None) -> None:
        """Say what the process of that age (gunicorn counts them) has; ``None``: it is gone."""
        self._counts[age % mmap.PAGESIZE] = self._ABSENT if count is None else min(count, self._ABSENT - 1)

    def someone_has_fewer_than(self, count: int) -> bool:
        """Tell whether another process should take the next one."""
        return min(self._counts[:]) < count


class PromptWorker(ThreadWorker):
    """Closes connections whose request head does not come to its end, or whose body only drips."""

    head_s = HEAD_S
    min_bytes_s = 0.0
    window_s = WINDOW_S
    connections = Connections()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._heads: dict[socket.socket, float] = {}
        self._bodies: set[BodyMeter] = set()
        self._queued = 0
        self._lock = threading.Lock()
        self._watched = threading.Event()
        """Set while anything is read: a server that nobody talks to is not woken four times a second."""

    def init_process(self) -> None:
        """Start to look at the clock; called in the worker process."""
        threading.Thread(target=self._watch, name="slow-peers", daemon=True).start()
        super().init_process()  # type: ignore[no-untyped-call]

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection, unless a process that has fewer takes it."""
        for _ in range(_LEFT_TIMES):
            if not self.connections.someone_has_fewer_than(self.nr_conns):
                break
            time.sleep(_LEFT_S)
        super().accept(listener)  # type: ignore[no-untyped-call]
        self.connections.note(self.age, self.nr_conns)

    def notify(self) -> None:
        """Tell the arbiter that this process lives, and the others how many connections it has."""
        self.connections.note(self.age, self.nr_conns)
        super().notify()  # type: ignore[no-untyped-call]

    def enqueue_req(self, conn: Any) -> None:
        """Let a connection wait for a thread."""
        with self._lock:
            self._queued += 1
        super().enqueue_req(conn)  # type: ignore[no-untyped-call]

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow at once: to hand the connection over costs more than to wait."""
        with self._lock:
            self._queued -= 1
        kept = self._handle_one(conn)
        while kept is True and self._more_comes(conn):
            kept = self._handle_one(conn)
        return kept

    def _more_comes(self, conn: Any) -> bool:
        """Tell whether the next request begins soon; nobody waits for it while others wait for a thread."""
        if self._queued or not self.alive:
            return False
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(_LINGER_MS))

    def _handle_one(self, conn: Any) -> Any:
        """Read a request and answer it; the clock of the head runs until ``handle_request``."""
        with self._lock:
            self._heads[conn.sock] = time.monotonic()
            self._watched.set()
        try:
            return super().handle(conn)  # type: ignore[no-untyped-call]
        finally:
            self._head_is_done(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head has come; its body is read through a meter."""
        self._head_is_done(conn)
        meter = BodyMeter(conn.sock, min_bytes_s=self.min_bytes_s, window_s=self.window_s)
        with self._lock:
            self._bodies.add(meter)
            self._watched.set()
        req.unreader.sock = meter
        if isinstance(req.body.reader, LengthReader):
            req.body = PromptBody(req.body.reader)  # type: ignore[no-untyped-call]
        try:
            return super().handle_request(req, conn)  # type: ignore[no-untyped-call]
        finally:
            req.unreader.sock = conn.sock
            with self._lock:
                self._bodies.discard(meter)

    def _head_is_done(self, conn: Any) -> None:
        with self._lock:
            self._heads.pop(conn.sock, None)

    def _watch(self) -> None:
        while self._watched.wait():
            time.sleep(_LOOK_S)
            with self._lock:
                if not self._heads and not self._bodies:
                    self._watched.clear()
                crowded = self._queued > 0
                heads, bodies = self._cut_heads(crowded), self._cut_bodies(crowded)
            if heads or bodies:
                log.warning("slow http peers cut off", extra={"heads": heads, "bodies": bodies, "crowded": crowded})

    def _cut_heads(self, crowded: bool) -> int:
        began_before = time.monotonic() - (min(CROWDED_S, self.head_s) if crowded else self.head_s)
        late = [peer for peer, began in self._heads.items() if began < began_before]
        for peer in late:
            del self._heads[peer]
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        return len(late)

    def _cut_bodies(self, crowded: bool) -> int:
        slow = [meter for meter in self._bodies if meter.is_too_slow(crowded=crowded)]
        for meter in slow:
            self._bodies.discard(meter)
            meter.give_up()
        return len(slow)


def prompt_worker(idle_timeout_s: float, min_body_kb_s: float) -> type[PromptWorker]:
    """Return the class for gunicorn; silence has its own limit, which the other two leave as it is.

    Called before the fork: the processes share its ``connections``.
    """
    limits = {
        "connections": Connections(),
        "head_s": min(HEAD_S, idle_timeout_s),
        "min_bytes_s": min_body_kb_s * 1024,
        "window_s": max(WINDOW_S, idle_timeout_s),
    }
    return type("PromptWorker", (PromptWorker,), limits)
