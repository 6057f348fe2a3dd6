"""Wakes those who wait for work, in whatever process they wait, so that nobody has to ask the tables all the time.

A ring tells only that something may be there. One that is lost costs its waiter the rest of his pause, nothing else:
what is to be done is in the tables.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import make_url

log = logging.getLogger(__name__)

TASKS = "tasks"
"""Rung when a task was put into a queue."""
ARRIVALS = "arrivals"
"""Rung when instances were kept."""
WITHOUT_S = 0.25
"""The longest pause of somebody whom no ring would reach."""
_SUFFIX = ".bell"


class Bell(Protocol):
    """One name on which anybody rings and for which any number of waiters listen."""

    def ring(self) -> None:
        """Wake everybody who waits for this name, in any process. Thread-safe; never fails."""
        ...

    def listen(self) -> None:
        """Be heard from now on: who looks for work after this misses no ring."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return at a ring, also one since the last call, or after ``timeout_s``. For one thread."""
        ...

    def wake(self) -> None:
        """Wake the waiter of this object alone. Thread-safe; never fails."""
        ...

    def close(self) -> None:
        """Listen no more."""
        ...


def bell(url: str, folder: Path, name: str) -> Bell:
    """Return the bell of those who work on the tables at ``url``: in its server, or as files in ``folder``."""
    if make_url(url).get_backend_name() == "postgresql":
        from pipeline.server_bell import ServerBell

        return ServerBell(url, name)
    return FileBell(folder / name)


class Waking:
    """The end of a pipe that one thread waits on, beside other descriptors; made when somebody waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: tuple[int, int] | None = None
        self._is_due = False
        """Somebody was to be woken before he waited first."""
        self._is_closed = False

    def wake(self) -> None:
        """See ``Bell.wake``."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: the waiter has enough to wake up for
            self._is_due = True
            if self._pipe is not None:
                os.write(self._pipe[1], b"w")

    def wait(self, timeout_s: float, *others: int) -> bool:
        """Wait for a wake, or until something can be read from ``others``; tell whether the latter is so."""
        own = self._made()
        if own is None:
            return False
        poll = select.poll()
        for descriptor in (own, *others):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1000)}
        drain(own)
        return bool(ready - {own})

    def _made(self) -> int | None:
        with self._lock:
            if self._pipe is None and not self._is_closed:
                self._pipe = os.pipe()
                for descriptor in self._pipe:
                    os.set_blocking(descriptor, False)
                if self._is_due:
                    os.write(self._pipe[1], b"w")
            return self._pipe and self._pipe[0]

    def close(self) -> None:
        """Give the pipe back; a later wake does nothing."""
        with self._lock:
            self._is_closed = True
            if self._pipe is not None:
                for descriptor in self._pipe:
                    os.close(descriptor)
                self._pipe = None


def drain(descriptor: int) -> None:
    """Read away what is there."""
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass


class FileBell:
    """Named pipes in a folder of one machine: each waiter has one, and who rings writes a byte into all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}.{secrets.token_hex(4)}{_SUFFIX}"
        self._pipe: int | None = None
        self._waking = Waking()
        self._failed = False

    def ring(self) -> None:
        """See ``Bell.ring``."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    _ring_one(entry.path)

    def listen(self) -> None:
        """See ``Bell.listen``."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        hidden = self._own.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.mkfifo(hidden, 0o600)
            # Open for both, so that it never ends; and open before it has its name: a bell that nobody has open is
            # the bell of a dead process.
            self._pipe = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            hidden.rename(self._own)
            self._failed = False
        except OSError as error:  # a full disk, or a file system that knows no pipes
            if not self._failed:
                log.warning("no bell can be made; what waits is looked for", extra={"errno": error.errno})
            self._failed = True
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)

    def wait(self, timeout_s: float) -> None:
        """See ``Bell.wait``."""
        if not self._is_there():  # never made, or taken away by somebody
            self.listen()
            timeout_s = 0.0 if not self._failed else timeout_s  # a ring may have been missed
        if self._failed or self._pipe is None:
            self._waking.wait(min(timeout_s, WITHOUT_S))
        elif self._waking.wait(timeout_s, self._pipe):
            drain(self._pipe)

    def _is_there(self) -> bool:
        try:
            return self._own.exists()
        except OSError:  # the folder cannot be searched, or its disk is gone: as good as not there
            return False

    def wake(self) -> None:
        """See ``Bell.wake``."""
        self._waking.wake()

    def close(self) -> None:
        """See ``Bell.close``."""
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        self._waking.close()


def _ring_one(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody has it open
            with contextlib.suppress(OSError):
                Path(path).unlink()
        return
    try:
        with contextlib.suppress(OSError):  # full: its waiter has enough to wake up for; or gone just now
            os.write(descriptor, b"r")
    finally:
        os.close(descriptor)


class Seldom:
    """Rings at most every ``pause_s``: for those who would ring a thousand times a second.

    What comes in between is not told, so the waiter must go on looking for a while by himself.
    """

    def __init__(self, ring: Callable[[], None], pause_s: float = 0.2) -> None:
        self._ring = ring
        self._pause_s = pause_s
        self._next = 0.0

    def __call__(self) -> None:
        """Ring, unless that was done just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._pause_s
            self._ring()
