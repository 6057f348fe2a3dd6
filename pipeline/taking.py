"""Takes tasks out of the queues of one process when the bell rings. With ``pipeline.jobs``, what knows dbos.

The open-source dbos asks its tables for each queue all the time: at the pace that a hop between queues needs, that
costs some percent of a core for ever. Its threads are stopped, and what they do is done here when there is a reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from uuid import uuid4

import sqlalchemy as sa
from dbos import DBOS
from dbos._core import WorkflowHandleFuture, execute_dequeued_workflow
from dbos._queue import Queue

from pipeline.bell import Bell

log = logging.getLogger(__name__)

IDLE_S = 5.0
"""The longest pause between two looks: somebody died between putting a task into a queue and ringing."""
_AGAIN_S = 0.25
"""The pause after the tables could not be read."""
_APART_S = 0.02
"""The shortest pause: many rings in a row are one."""


class Taker:
    """A thread that claims tasks and starts them, as many at a time as each queue has places."""

    def __init__(
        self,
        dbos: DBOS,
        bell: Bell,
        *,
        executor_id: str,
        version: str,
        queues: Mapping[str, Queue],
        places: Mapping[str, int],
    ) -> None:
        self._dbos = dbos
        self._bell = bell
        self._executor_id = executor_id
        self._version = version
        self._queues = queues
        self._places = places
        self._running: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taker", daemon=True)

    def start(self) -> None:
        """Take over from dbos's own threads, which were started with it, and begin."""
        for event in self._dbos.background_thread_stop_events:
            event.set()
        self._dbos._background_jobs_stop_event.set()
        tables = self._dbos._sys_db
        # Messages between workflows, which we do not send: its listener would look for them ten times a second.
        tables._run_background_processes = False
        tables._cleanup_connections()
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more; what runs goes on."""
        self._stop.set()
        self._bell.wake()
        self._thread.join()
        self._bell.close()

    def _run(self) -> None:
        self._bell.listen()
        failed = False
        while not self._stop.is_set():
            try:
                pause_s = self.look()
                looked = time.monotonic()
                self._bell.wait(pause_s)
                failed = False
                self._stop.wait(max(0.0, looked + _APART_S - time.monotonic()))
            except Exception as error:
                # The database is away, most likely. This thread must not end: nobody would notice.
                if not failed:
                    log.warning("could not look for tasks", extra={"error": type(error).__name__})
                failed = True
                self._stop.wait(_AGAIN_S)

    def look(self) -> float:
        """Start what can be started; return how long nothing more can be due, unless the bell rings."""
        pause_s = self._wake_delayed()
        for name, queue in self._queues.items():
            free = self._places[name] - self._running[name]
            if free > 0:
                self._take(name, queue)
        return pause_s

    def _wake_delayed(self) -> float:
        """Put tasks whose delay is over into their queues; return for how long there will be no more of them."""
        status = self._dbos._sys_db.tables.workflow_status.c
        # The status as a literal: only then the databases take the partial index.
        delayed = status.status == sa.literal_column("'DELAYED'")
        with self._dbos._sys_db.engine.begin() as connection:
            first_ms = connection.execute(sa.select(sa.func.min(status.delay_until_epoch_ms)).where(delayed)).scalar()
        if first_ms is None:
            return IDLE_S
        left_s: float = first_ms / 1000 - time.time()
        if left_s > 0:
            return min(left_s, IDLE_S)
        self._dbos._sys_db.transition_delayed_workflows()
        self._bell.ring()  # they may be others' work
        return 0.0

    def _take(self, name: str, queue: Queue) -> None:
        owner = str(uuid4())
        tables = self._dbos._sys_db
        claimed, _ = tables.start_queued_workflows(
            queue,
            self._executor_id,
            self._version,
            None,
            self._running[name],
            owner_xid=owner,
            # Only for tasks without a version, and ours have one.
            is_latest_version=False,
        )
        for status in tables.get_workflow_statuses(claimed) if claimed else ():
            with self._counting:
                self._running[name] += 1
            try:
                handle = execute_dequeued_workflow(self._dbos, status, owner)
            except Exception as error:
                # It stays ours by name, and is put back (``JobEngine.put_back_dropped``).
                log.warning("a task could not be started", extra={"error": type(error).__name__})
                self._ended(name)
                continue
            if isinstance(handle, WorkflowHandleFuture):
                handle.future.add_done_callback(lambda _: self._ended(name))
            else:  # taken over in between
                self._ended(name)

    def _ended(self, name: str) -> None:
        with self._counting:
            self._running[name] -= 1
        self._bell.wake()
