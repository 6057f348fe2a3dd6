"""Takes over what the dead were working on. Runs in every process that works on tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pipeline.liveness import Liveness

log = logging.getLogger(__name__)


class Recoverable(Protocol):
    """The part of the durable engine that the reaper needs."""

    def owners(self) -> set[str]:
        """Return the executors that own a running task, this process among them."""
        ...

    def take_over(self, executor_id: str) -> int:
        """Put the tasks of a dead executor back into their queues; return how many. Harmless when repeated."""
        ...

    def put_back_dropped(self, after_s: float) -> int:
        """Put back tasks that are this process' own by name, but that no thread has been running for so long."""
        ...


class Reaper:
    """Looks every ``interval_s`` whether an executor that owns tasks is dead."""

    def __init__(
        self,
        engine: Recoverable,
        locks: Liveness,
        executor_id: str,
        *,
        interval_s: float = 2.0,
        sweep_s: float = 15.0,
        dropped_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._locks = locks
        self._own = executor_id
        self._interval_s, self._sweep_s, self._dropped_s = interval_s, sweep_s, dropped_s
        self._clock = clock
        self._sweep_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin to look, at once and then for as long as the process lives."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; the lock stays held."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as error:
                # The database is away, most likely: nobody is judged, and the next look tells more.
                log.warning("could not look after other workers", extra={"error": type(error).__name__})
            self._stop.wait(self._interval_s)

    def look(self) -> int:
        """Take over from everybody who is dead; return how many tasks."""
        self._locks.keep()
        taken = 0
        for owner in sorted(self._engine.owners() - {self._own}):
            if self._locks.is_dead(owner):
                count = self._engine.take_over(owner)
                log.warning("tasks of a dead worker taken over", extra={"tasks": count, "worker": owner})
                taken += count
        dropped = self._engine.put_back_dropped(self._dropped_s)
        if dropped:
            log.warning("tasks that broke off are put back", extra={"tasks": dropped})
        if self._clock() >= self._sweep_at:
            self._locks.sweep()
            self._sweep_at = self._clock() + self._sweep_s
        return taken + dropped
