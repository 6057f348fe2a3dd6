"""Bells of a PostgreSQL server (LISTEN, NOTIFY), for any number of machines."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

import psycopg
import psycopg.conninfo
from sqlalchemy.engine import make_url

from pipeline.bell import WITHOUT_S, Waking
from pipeline.liveness import KEEPALIVES

log = logging.getLogger(__name__)

_ANSWER_S = 5.0
"""Who rings has something else to do: receivers ring before they answer."""


class Connection(psycopg.Connection[tuple[object, ...]]):
    """A connection on which a server that stands still, with its connections up, is not waited for."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See ``psycopg.Connection.wait``: every statement goes through here."""
        return super().wait(gen, interval, _ANSWER_S if timeout is None else timeout)


class ServerBell:
    """A connection to listen on and one to ring with, made when first needed and anew when they are lost."""

    def __init__(self, url: str, name: str) -> None:
        conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._conninfo = psycopg.conninfo.make_conninfo(conninfo, **KEEPALIVES)
        self._channel = f"voxgate_{name}"
        self._ringing: Connection | None = None
        self._listening: Connection | None = None
        self._waking = Waking()
        self._failed = False
        self._lock = threading.Lock()

    def ring(self) -> None:
        """See ``Bell.ring``."""
        if not self._lock.acquire(timeout=_ANSWER_S):
            return  # the others found nobody who answers
        try:
            # One that was made before may have been lost since; a ring that gets through there is heard twice.
            was_made = self._ringing is not None
            if not self._has_rung() and was_made:
                self._has_rung()
        finally:
            self._lock.release()

    def _has_rung(self) -> bool:
        try:
            self._ringing = self._ringing or self._connect()
            self._ringing.execute("SELECT pg_notify(%s, '')", (self._channel,))
        except psycopg.Error:
            self._ringing = _without(self._ringing)
        return self._ringing is not None

    def listen(self) -> None:
        """See ``Bell.listen``."""
        self._listening = _without(self._listening)
        try:
            self._listening = self._connect()
            self._listening.execute(f"LISTEN {self._channel}".encode())
            self._failed = False
        except psycopg.Error:
            self._listening = _without(self._listening)
            if not self._failed:
                log.warning("no bell of the database can be heard; what waits is looked for")
            self._failed = True

    def wait(self, timeout_s: float) -> None:
        """See ``Bell.wait``."""
        if self._listening is None:
            self.listen()
            # A ring may have been missed, so nobody waits; and without a server only for a moment.
            self._waking.wait(min(timeout_s, WITHOUT_S) if self._failed else 0.0)
            return
        try:
            if self._waking.wait(timeout_s, self._listening.fileno()):
                for _ in self._listening.notifies(timeout=0):
                    pass
                if self._listening.broken:
                    self._listening = _without(self._listening)
        except psycopg.Error:
            self._listening = _without(self._listening)

    def wake(self) -> None:
        """See ``Bell.wake``."""
        self._waking.wake()

    def close(self) -> None:
        """See ``Bell.close``."""
        with self._lock:
            self._ringing = _without(self._ringing)
        self._listening = _without(self._listening)
        self._waking.close()

    def _connect(self) -> Connection:
        return Connection.connect(self._conninfo, autocommit=True)


def _without(connection: Connection | None) -> Connection | None:
    """Close what may be broken; return what stands for it from now on: nothing."""
    if connection is not None:
        with contextlib.suppress(psycopg.Error):
            connection.close()
    return None
