"""The durable engine: with ``pipeline.taking`` the one that knows dbos.

One generic workflow runs one step of one job and enqueues what follows. Its identity is the task's identity, so a
task happens once however often it is enqueued; a step that was running when its process died runs again as soon as
another process has seen that (``pipeline.takeover``). The open-source dbos itself never takes over.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict

import psycopg
import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from dbos._context import current_owner_xid
from dbos._serialization import DBOSPortableJSON
from sqlalchemy.exc import SQLAlchemyError

from domain.errors import StorageError
from pipeline.bell import TASKS, Bell, bell
from pipeline.liveness import KEEPALIVES
from pipeline.taking import Taker
from pipeline.task import Task

log = logging.getLogger(__name__)

# Changed only when stored tasks can no longer be run by newer code: dbos strands tasks of other versions.
TASK_VERSION = "tasks-1"

QUEUES = {"cpu": 2, "infer-cpu": 1, "deliver": 4}
"""Queues with the number of tasks one process runs at a time; that of a device runs one."""

_REPEAT_S = 60.0
_ACTIVE = ["PENDING", "ENQUEUED", "DELAYED"]
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEngineSettings:
    """How one process takes part in the work."""

    url: str
    """SQLAlchemy URL of the engine's own tables."""
    executor_id: str
    """Of this process alone, now and ever (``liveness.new_executor_id``): others take tasks over by it."""
    queues: tuple[str, ...]
    devices: tuple[str, ...] = ()
    """Queues of the devices that engines are configured for, whoever serves them."""
    bells: Path
    """Folder in which those of one machine wake each other (``pipeline.bell``); not used with PostgreSQL."""


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


@contextmanager
def reached() -> Iterator[None]:
    """Say what to look at where the engine's tables or locks cannot be worked with, as when a process starts."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, psycopg.Error, OSError) as error:
        raise StorageError(
            "the tables of the jobs cannot be read or written: does the database answer, and has its disk room?"
        ) from error


def _is_postgresql(url: str) -> bool:
    return url.startswith("postgresql")


def _quieten() -> None:
    """Let dbos speak only when something is wrong, now and then, and through the log that everything goes through.

    Its own handler writes the text of errors to stderr: of the database's these are statements with their values.
    """
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.WARNING)  # its informational lines advertise a hosted service
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.handlers[:] = [logging.NullHandler()]  # dbos adds its own where there is none
        logger.addFilter(_Seldom())
    logger.propagate = True


class _Seldom(logging.Filter):
    """Lets a place in the code speak once in a while: while the database is away dbos complains at every look."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(place, -_REPEAT_S) < _REPEAT_S:
            return False
        self._last[place] = now
        return True


class JobEngine:
    """Runs tasks from the queues of one process, durably. One for each process."""

    def __init__(self, settings: JobEngineSettings, run: Callable[[Task], list[Task]]) -> None:
        self._settings = settings
        self._run = run
        self._bell: Bell = bell(settings.url, settings.bells, TASKS)
        self._taker: Taker | None = None
        config: DBOSConfig = {
            "name": "voxgate",
            "system_database_url": settings.url,
            "application_version": TASK_VERSION,
            "executor_id": settings.executor_id,
            "serializer": DBOSPortableJSON,
            "run_migrations": False,
            "db_engine_kwargs": {"connect_args": KEEPALIVES} if _is_postgresql(settings.url) else {},
            "console_log_level": "WARNING",
            "log_level": "WARNING",
        }
        _quieten()
        self._dbos = DBOS(config=config)
        self._missed: dict[str, float] = {}

        # A process that is killed again and again is no fault of the task: no practical limit here.
        @DBOS.workflow(name="task", max_recovery_attempts=1_000_000)
        def workflow(step: str, args: list[str | int], queue: str, priority: int) -> None:
            task = Task(step=step, args=tuple(args), queue=queue, priority=priority)
            try:
                for following in DBOS.run_step({"name": step}, self._step, task):
                    self.enqueue(_task_of(following))
            except Exception as error:
                # The steps let nothing escape but faults of the database: the task has not failed, it is not done.
                log.warning("task broke off", extra={"step": step, "error": type(error).__name__})
                raise _BrokeOff from error

        self._workflow = workflow

    def start(self) -> None:
        """Begin to take tasks."""
        DBOS.listen_queues([])
        DBOS.launch()
        places = {**QUEUES, **dict.fromkeys(self._settings.devices, 1)}
        queues = {name: DBOS.register_queue(name, worker_concurrency=number) for name, number in places.items()}
        self._taker = Taker(
            self._dbos,
            self._bell,
            executor_id=self._settings.executor_id,
            version=TASK_VERSION,
            queues={name: queues[name] for name in self._settings.queues},
            places=places,
        )
        self._taker.start()

    def stop(self) -> None:
        """Stop taking tasks; a running one goes back to its queue when this executor starts again."""
        if self._taker is not None:
            self._taker.stop()
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=0)

    def busy(self) -> bool:
        """Tell whether a task is running in this process."""
        return bool(self._dbos._active_workflows_set.activeList())

    def owners(self) -> set[str]:
        """See ``Recoverable.owners``."""
        return {executor_id for _, executor_id in self._running()}

    def take_over(self, executor_id: str) -> int:
        """See ``Recoverable.take_over``. Private in dbos 3.4: a re-enqueue that is conditional on the executor id."""
        count = len(DBOS._recover_pending_workflows([executor_id]))
        self._bell.ring()
        return count

    def put_back_dropped(self, after_s: float) -> int:
        """See ``Recoverable.put_back_dropped``.

        dbos leaves a task as running for ever when its tables could not be written at the wrong moment.
        """
        here = set(self._dbos._active_workflows_set.activeList())
        own = {identity for identity, executor_id in self._running() if executor_id == self._settings.executor_id}
        now = time.monotonic()
        self._missed = {identity: self._missed.get(identity, now) for identity in own - here}
        overdue = [identity for identity, since in self._missed.items() if now - since >= after_s]
        for identity in overdue:
            del self._missed[identity]
            self._dbos._sys_db.reenqueue_for_recovery(identity, [self._settings.executor_id], "cpu")
        if overdue:
            self._bell.ring()
        return len(overdue)

    def _running(self) -> list[tuple[str, str]]:
        """Return the identity of each running task with its executor."""
        tables = self._dbos._sys_db
        status = tables.tables.workflow_status.c
        # Asked all the time, and so not by ``list_workflows``; a literal, for the partial index.
        query = sa.select(status.workflow_uuid, status.executor_id).where(
            status.status == sa.literal_column("'PENDING'"), status.executor_id.is_not(None)
        )
        with tables.engine.begin() as connection:
            return [(identity, executor_id) for identity, executor_id in connection.execute(query)]

    def enqueue(self, task: Task) -> None:
        """Put a task into its queue, durably; nothing happens when its identity is known."""
        options = SetEnqueueOptions(priority=task.priority, delay_seconds=task.delay_s or None)
        with SetWorkflowID(task.identity), options:
            DBOS.enqueue_workflow(task.queue, self._workflow, task.step, list(task.args), task.queue, task.priority)
        self._bell.ring()

    def active(self) -> set[str]:
        """Return the identities of all tasks that wait or run, in any process.

        What waits for a device that no engine is configured for any more will never run, and is left out.
        """
        served = {*QUEUES, *self._settings.devices}
        found = DBOS.list_workflows(status=_ACTIVE, load_input=False, load_output=False)
        return {item.workflow_id for item in found if item.status == "PENDING" or item.queue_name in served}

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
        identity = DBOS.workflow_id or ""
        if self._dbos._sys_db.get_workflow_owner(identity) != current_owner_xid(identity):
            # Frozen between taking the task and beginning it, and taken over since.
            raise _BrokeOff
        try:
            return [_json_of(following) for following in self._run(task)]
        except Exception as error:
            # Not let out as it is: dbos would record it as the outcome of the step.
            log.warning("step broke off", extra={"step": task.step, "error": type(error).__name__})
            raise _BrokeOff from error


class _BrokeOff(BaseException):
    """Ends a task without an outcome, so that it is put back; dbos records every ``Exception`` as the outcome."""


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
