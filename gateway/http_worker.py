"""gunicorn's worker with a limit that it lacks: how long a peer may take for the head of a request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

HEAD_S = 5.0
"""A head is a few hundred bytes. A peer that sends it byte by byte would otherwise hold a thread for ever."""
_LOOK_S = 0.5


class PromptWorker(ThreadWorker):
    """Closes connections whose request head does not come to its end; bodies may take their time."""

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._heads: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def init_process(self) -> None:
        """Start to look at the clock; called in the worker process."""
        threading.Thread(target=self._watch, name="heads", daemon=True).start()
        super().init_process()  # type: ignore[no-untyped-call]

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it; the clock runs until ``handle_request``."""
        with self._lock:
            self._heads[conn.sock] = time.monotonic() + self.head_s
        try:
            return super().handle(conn)  # type: ignore[no-untyped-call]
        finally:
            self._head_is_done(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head has come."""
        self._head_is_done(conn)
        return super().handle_request(req, conn)  # type: ignore[no-untyped-call]

    def _head_is_done(self, conn: Any) -> None:
        with self._lock:
            self._heads.pop(conn.sock, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            with self._lock:
                late = [peer for peer, until in self._heads.items() if until < now]
                for peer in late:
                    del self._heads[peer]
                    with contextlib.suppress(OSError):
                        peer.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it


def prompt_worker(idle_timeout_s: float) -> type[PromptWorker]:
    """Return the class for gunicorn, with a limit that is no longer than the one for silence."""
    return type("PromptWorker", (PromptWorker,), {"head_s": min(HEAD_S, idle_timeout_s)})
