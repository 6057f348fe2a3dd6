"""The durable engine: the one module that knows dbos.

One generic workflow runs one step of one job and enqueues what follows. Its identity is the task's identity, so a
task happens once however often it is enqueued; a step that was running when its process died runs again when a
process with the same executor id starts.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict, TypeVar

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from dbos import error as dbos_error
from dbos._serialization import DBOSPortableJSON

from pipeline.task import Task

log = logging.getLogger(__name__)

# Changed only when stored tasks can no longer be run by newer code: dbos strands tasks of other versions.
TASK_VERSION = "tasks-1"

QUEUES = {"cpu": 2, "infer-cpu": 1, "gpu": 1, "deliver": 4}
"""Queues with the number of tasks one process runs at a time."""

_ACTIVE = ["PENDING", "ENQUEUED", "DELAYED"]
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
Result = TypeVar("Result")
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEngineSettings:
    """How one process takes part in the work."""

    url: str
    """SQLAlchemy URL of the engine's own tables."""
    executor_id: str
    """Stable over restarts of the same role on the same machine: recovery goes by it."""
    queues: tuple[str, ...]
    polling_s: float = 0.15


def jobs_url(database_url: str, store: Path) -> str:
    """Return the engine's URL: the configured database, or a SQLite file in the store."""
    return database_url or f"sqlite:///{store / 'jobs.sqlite'}"


def migrate(url: str) -> None:
    """Create or update the engine's tables. Run once, before any process starts."""
    prefix = "sqlite:///"
    if url.startswith(prefix):
        path = Path(url.removeprefix(prefix))
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path) as connection:
            # Five times the throughput, and readers do not block writers; dbos leaves it off.
            connection.execute("pragma journal_mode=wal")
        connection.close()
    _quieten()
    DBOS.migrate(url)


def _quieten() -> None:
    """Let dbos speak only when something is wrong; its informational lines advertise a hosted service."""
    logging.getLogger("dbos").setLevel(logging.WARNING)


class JobEngine:
    """Runs tasks from the queues of one process, durably. One for each process."""

    def __init__(self, settings: JobEngineSettings, run: Callable[[Task], list[Task]]) -> None:
        self._settings = settings
        self._run = run
        self._stopping = threading.Event()
        config: DBOSConfig = {
            "name": "voxgate",
            "system_database_url": settings.url,
            "application_version": TASK_VERSION,
            "executor_id": settings.executor_id,
            "serializer": DBOSPortableJSON,
            "run_migrations": False,
            "console_log_level": "WARNING",
            "log_level": "WARNING",
        }
        DBOS(config=config)

        # A process that is killed again and again is no fault of the task: no practical limit here.
        @DBOS.workflow(name="task", max_recovery_attempts=1_000_000)
        def workflow(step: str, args: list[str | int], queue: str, priority: int) -> None:
            task = Task(step=step, args=tuple(args), queue=queue, priority=priority)
            for following in self._patiently(lambda: DBOS.run_step({"name": step}, self._step, task)):
                self._patiently(lambda one=following: self.enqueue(_task_of(one)))  # type: ignore[misc]

        self._workflow = workflow

    def start(self) -> None:
        """Begin to take tasks, those first that were running when this executor last died."""
        DBOS.listen_queues(list(self._settings.queues))
        DBOS.launch()
        for name, concurrency in QUEUES.items():
            DBOS.register_queue(name, worker_concurrency=concurrency, polling_interval_sec=self._settings.polling_s)

    def stop(self) -> None:
        """Stop taking tasks; a running one goes back to its queue when this executor starts again."""
        self._stopping.set()
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=0)

    def _patiently(self, act: Callable[[], Result]) -> Result:
        """Do what writes to the engine's tables, however long they cannot be written.

        dbos waits for a lock and for a lost connection, but gives a workflow up over a full disk: it would count as
        running until this process is started again.
        """
        delay_s = _FIRST_WAIT_S
        while True:
            try:
                return act()
            except dbos_error.DBOSException:
                raise
            except Exception as error:
                log.warning("task waits for its database", extra={"error": type(error).__name__})
                if self._stopping.wait(delay_s):
                    raise
                delay_s = min(2 * delay_s, _LONGEST_WAIT_S)

    def enqueue(self, task: Task) -> None:
        """Put a task into its queue, durably; nothing happens when its identity is known."""
        options = SetEnqueueOptions(priority=task.priority, delay_seconds=task.delay_s or None)
        with SetWorkflowID(task.identity), options:
            DBOS.enqueue_workflow(task.queue, self._workflow, task.step, list(task.args), task.queue, task.priority)

    def active(self) -> set[str]:
        """Return the identities of all tasks that wait or run, in any process."""
        found = DBOS.list_workflows(status=_ACTIVE, load_input=False, load_output=False)
        return {item.workflow_id for item in found}

    def prune(self, older_than: timedelta) -> int:
        """Forget ended tasks older than this; their jobs stay in the job log. Returns how many."""
        before = (datetime.now(UTC) - older_than).isoformat()
        ended = DBOS.list_workflows(
            status=_ENDED, completed_before=before, limit=10_000, load_input=False, load_output=False
        )
        if ended:
            DBOS.delete_workflows([item.workflow_id for item in ended])
        return len(ended)

    def _step(self, task: Task) -> list[_Json]:
        return [_json_of(following) for following in self._run(task)]


class _Json(TypedDict):
    """A task as dbos keeps it: plain JSON, so that whoever writes to its tables cannot make us run code."""

    step: str
    args: list[str | int]
    queue: str
    priority: int
    delay_s: float


def _json_of(task: Task) -> _Json:
    return _Json(step=task.step, args=list(task.args), queue=task.queue, priority=task.priority, delay_s=task.delay_s)


def _task_of(json: _Json) -> Task:
    return Task(
        step=json["step"],
        args=tuple(json["args"]),
        queue=json["queue"],
        priority=json["priority"],
        delay_s=json["delay_s"],
    )
