"""Who lives: each process that works on tasks holds a lock for as long as it lives, and anybody may try it.

A lock that can be had belongs to nobody: whatever its owner was working on is free to be taken over. The system lets
go of the lock however its owner ends, so that there is nothing to expire and nothing stale to clean by hand.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
import psycopg.conninfo
from sqlalchemy.engine import make_url

log = logging.getLogger(__name__)

_SUFFIX = ".alive"
_CLASS = 0x766F7867
"""``classid`` of our locks in ``pg_locks`` ("voxg"); dbos has advisory locks of its own."""
KEEPALIVES = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq: a server that is gone without a word is noticed after 20 s."""
_SERVER = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""PostgreSQL: a client whose machine lost power loses its locks after 20 s."""


def new_executor_id(role: str) -> str:
    """Return a name that no other process has had or will have: a restarted process is another one."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:40]
    return f"{host}.{role}.{secrets.token_hex(6)}"


class Liveness(Protocol):
    """This process' lock and everybody else's. Used by one thread at a time."""

    def keep(self) -> None:
        """Take the lock, or make sure that it is still held. Raises whatever the system says when it cannot be."""
        ...

    def is_dead(self, executor_id: str) -> bool:
        """Tell whether the process of this name is surely gone."""
        ...

    def sweep(self) -> int:
        """Remove what the dead left behind; return how much."""
        ...

    def release(self) -> None:
        """Let go; only when no task of this process can be running any more."""
        ...


def liveness(url: str, folder: Path, executor_id: str) -> Liveness:
    """Return the locks of those who work on the tables at ``url``: in its server, or as files in ``folder``."""
    if make_url(url).get_backend_name() == "postgresql":
        return ServerLocks(url, executor_id)
    return FileLocks(folder, executor_id)


class FileLocks:
    """flock(2) on files of one machine."""

    def __init__(self, folder: Path, executor_id: str) -> None:
        self._folder = folder
        self._own = folder / f"{executor_id}{_SUFFIX}"
        self._held: int | None = None

    def keep(self) -> None:
        """See ``Liveness.keep``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._held is not None and not _is_file(self._held, self._own):
            os.close(self._held)  # somebody removed the file by hand
            self._held = None
        while self._held is None:
            fd = os.open(self._own, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_file(fd, self._own):
                self._held = fd
            else:  # somebody swept it between the two calls
                os.close(fd)

    def is_dead(self, executor_id: str) -> bool:
        """See ``Liveness.is_dead``; a process without a file has been swept."""
        path = self._folder / f"{executor_id}{_SUFFIX}"
        with _tried(path) as fd:
            return fd is not None or not path.exists()

    def sweep(self) -> int:
        """See ``Liveness.sweep``."""
        removed = 0
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with _tried(path) as fd:
                if path != self._own and fd is not None and _is_file(fd, path):
                    path.unlink()
                    removed += 1
        return removed

    def release(self) -> None:
        """See ``Liveness.release``."""
        if self._held is not None:
            self._own.unlink(missing_ok=True)
            os.close(self._held)
            self._held = None


@contextmanager
def _tried(path: Path) -> Iterator[int | None]:
    """Yield the locked file, or ``None`` when it is somebody's or not there."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    except BlockingIOError:
        yield None
    finally:
        os.close(fd)


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


class ServerLocks:
    """Session advisory locks of a PostgreSQL server, for any number of machines.

    A server that restarts lets go of everybody's lock at once, while everybody lives. Therefore a process is dead
    only when its lock could be had for ``doubt_s``, and for ``settle_s`` after this process had to connect again it
    judges nobody. Should a live process be taken for dead all the same, the job log's claims keep its writes out.
    """

    def __init__(
        self,
        url: str,
        executor_id: str,
        *,
        doubt_s: float = 3.0,
        settle_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._own = executor_id
        self._doubt_s, self._settle_s, self._clock = doubt_s, settle_s, clock
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._lost_once = False
        self._judges_from = 0.0
        self._doubted: dict[str, float] = {}

    def keep(self) -> None:
        """See ``Liveness.keep``."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self._connection.close()
                self._connection = None
                self._lost_once = True
                self._doubted.clear()
                log.warning("the lock of this process is lost with its connection; it is taken again")
            else:
                return
        self._connect()

    def _connect(self) -> None:
        conninfo = psycopg.conninfo.make_conninfo(self._conninfo, options=_SERVER, **KEEPALIVES)
        connection = psycopg.connect(conninfo, autocommit=True)
        if not _had(connection, "pg_try_advisory_lock", self._own):
            # The server has not noticed yet that our old connection is gone.
            connection.close()
            raise psycopg.OperationalError("the old connection still holds the lock")
        self._connection = connection
        if self._lost_once:
            self._judges_from = self._clock() + self._settle_s

    def is_dead(self, executor_id: str) -> bool:
        """See ``Liveness.is_dead``."""
        now = self._clock()
        if self._connection is None or now < self._judges_from:
            return False
        if not _had(self._connection, "pg_try_advisory_lock", executor_id):
            self._doubted.pop(executor_id, None)
            return False
        _had(self._connection, "pg_advisory_unlock", executor_id)
        return now - self._doubted.setdefault(executor_id, now) >= self._doubt_s

    def sweep(self) -> int:
        """Nothing is left behind in a server; forget who has been judged."""
        old = [name for name, since in self._doubted.items() if self._clock() - since > 60 + self._doubt_s]
        for name in old:
            del self._doubted[name]
        return 0

    def release(self) -> None:
        """See ``Liveness.release``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _had(connection: psycopg.Connection[tuple[object, ...]], function: str, executor_id: str) -> bool:
    key = int.from_bytes(hashlib.sha256(executor_id.encode()).digest()[:4], "big", signed=True)
    row = connection.execute(f"SELECT {function}(%s::int, %s::int)", (_CLASS, key)).fetchone()
    return row is not None and bool(row[0])
