"""Writers of one SQLite database take turns; left to SQLite they would sleep for milliseconds, whoever was first."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from domain.errors import StorageError

_PAUSES_S = tuple(min(0.0002 * 1.3**number, 0.003) for number in range(24))
"""Between looks, 50 ms together. A transaction takes as long as the first two, unless the machine is busy."""


class Turns:
    """A lock for the threads of this process, and a courtesy between processes.

    Whoever does not get the courtesy soon (its holder was frozen, or is slow) goes on without it: what keeps two
    transactions apart is SQLite's own lock, and its own waiting.
    """

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._threads = threading.Lock()
        self._fd: int | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and hold it.

        Raises
        ------
        StorageError
            Other threads of this process have been writing for ``patience_s``.
        """
        if not self._threads.acquire(timeout=self._patience_s):
            raise StorageError("The index is too busy")
        try:
            courteous = False
            with suppress(OSError):  # no room for the file, or a file system without such locks: SQLite has its own
                courteous = self._ask()
            try:
                yield
            finally:
                if courteous and self._fd is not None:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _ask(self) -> bool:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for pause_s in _PAUSES_S:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause_s)
            else:
                return True
        return False

    def close(self) -> None:
        """Let go of the file, which stays: another process may be asking for it."""
        fd, self._fd = self._fd, None  # the number may soon be another file's: a late writer opens it anew
        if fd is not None:
            os.close(fd)
