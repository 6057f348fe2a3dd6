"""An end for connections over which bytes only trickle: a socket's own timeout begins anew with each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer


class Cutoff:
    """Shuts a connection down when what is done over it takes too long; whoever waits there then finds it closed."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        self._connection = connection
        self._over = False

    def watch(self, connection: socket.socket) -> None:
        """Take ``connection`` for the one to shut down."""
        self._connection = connection
        if self._over:
            self._cut()

    @contextmanager
    def after(self, limit_s: float) -> Iterator[None]:
        """Let the block take ``limit_s`` seconds at the most."""
        timer = Timer(limit_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        self._over = True
        if self._connection is not None:
            with suppress(OSError):  # closed already
                # Not the method of a TLS socket, which takes its state away from who reads there
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
