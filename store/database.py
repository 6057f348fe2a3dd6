"""The index's database: SQLite in WAL mode or PostgreSQL, the same statements for both."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, Row, Select, Update, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.schema import Table
from sqlalchemy.sql import Insert as AnyInsert

from domain.errors import ConfigurationError, OutOfSpace, StorageError
from store.prepared import Prepared, execute_plainly
from store.turns import Turns

_BUSY_S = 30
"""A statement waits so long for SQLite's lock, or for PostgreSQL to say anything."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PG_DISK_FULL = "53100"
_PG_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq: a server that is gone without a word is noticed after 20 s, and peers are told to come again."""
AnyRow = Row[*tuple[Any, ...]]
Insert = sqlite.Insert | postgresql.Insert


def database_fault(url: str) -> str | None:
    """Return what is wrong with the URL of a database, which may hold a password; ``None`` where nothing is."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        return "must be postgresql+psycopg://user:password@host/database"
    if found.get_backend_name() == "postgresql" or (found.get_backend_name() == "sqlite" and found.database):
        return None
    return "only postgresql+psycopg:// and sqlite:/// with a file are known"


def index_url(path: Path, database_url: str) -> URL:
    """Return the URL of the index; by default a file in the store at ``path``."""
    if not database_url:
        return URL.create("sqlite", database=str(path.resolve() / "index.sqlite"))
    fault = database_fault(database_url)
    if fault is not None:
        raise ConfigurationError(f"database.url: {fault}")
    url = make_url(database_url)
    return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url


class Database:
    """Connections to the index. Thread-safe; not to be carried across ``fork``.

    Parameters
    ----------
    is_patient
        A statement may take as long as it takes, as when tables are changed.
    """

    def __init__(self, url: URL, *, is_patient: bool = False) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self.is_sqlite else _postgresql_engine(url, is_patient=is_patient)
        self._writing = self._engine.execution_options(voxgate_writes=True)
        self._writer: Connection | None = None
        self._turns = Turns(Path(f"{url.database}-turn"), patience_s=_BUSY_S) if self.is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads: one consistent state of the index."""
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes; it is on disk when the block is left.

        Raises
        ------
        OutOfSpace
            The database's disk is full.
        StorageError
            Anything else; nothing was written, except where the connection broke during the commit.
        """
        # SQLite must take its one write lock at the start: a reader that turns writer fails at once when busy.
        if self._turns is None:
            with translated(), self._writing.begin() as connection:
                yield connection
        else:
            with translated(), self._turns.turn(), self._kept() as connection, connection.begin():
                yield connection

    @contextmanager
    def _kept(self) -> Iterator[Connection]:
        """Hold the connection of the one thread that writes: to get one anew costs as much as to use it."""
        self._writer = self._writer or self._writing.connect()
        try:
            yield self._writer
        except BaseException:
            self._let_go()  # whatever is left of the transaction goes with it
            raise

    def _let_go(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def insert(self, table: Table) -> Insert:
        """Return an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def prepared(self, statement: Select[Any] | AnyInsert | Update, *, given: Iterable[str] = ()) -> Prepared:
        """Return a statement that is executed again and again; see ``Prepared``."""
        return Prepared(statement, self._engine.dialect, given=given)

    def close(self) -> None:
        """Close the connections."""
        self._let_go()
        if self._turns is not None:
            self._turns.close()
        self._engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the disk and of the database into ours; an IntegrityError is the caller's business."""
    try:
        yield
    except IntegrityError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutOfSpace("The disk of the store is full") from error
        raise StorageError("The store's files could not be read or written") from error
    except SQLAlchemyError as error:
        if isinstance(error, DBAPIError) and _is_full(error.orig):
            raise OutOfSpace("The disk of the index is full") from error
        raise StorageError("The index could not be read or written") from error
    except sqlite3.Error as error:
        if _is_full(error):
            raise OutOfSpace("The disk of the index is full") from error
        raise StorageError("The index could not be read or written") from error


def _is_full(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_FULL or getattr(error, "sqlstate", None) == _PG_DISK_FULL


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_S, "check_same_thread": False}, pool_size=8, max_overflow=64
    )

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver's own transactions begin too late
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        options: Any = connection.get_execution_options()
        execute_plainly(connection, "BEGIN IMMEDIATE" if options.get("voxgate_writes") else "BEGIN")

    return engine


def _postgresql_engine(url: URL, *, is_patient: bool) -> Engine:
    # Whatever the server's default: success means safe.
    arguments = {**_PG_CONNECTION, "options": "-c synchronous_commit=on"}
    engine = create_engine(url, connect_args=arguments, pool_size=8, max_overflow=64, pool_pre_ping=True)
    if is_patient:
        return engine

    @event.listens_for(engine, "do_connect")
    def _(_dialect: object, _record: object, args: list[Any], options: dict[str, Any]) -> _Impatient:
        return _Impatient.connect(*args, **options)

    return engine


class _Impatient(psycopg.Connection[Any]):
    """A connection that is given up when its server is silent for too long.

    A server that stands still keeps its connections up, so that nothing but a clock of our own notices.
    """

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See ``psycopg.Connection.wait``: every statement goes through here."""
        try:
            return super().wait(gen, interval, _BUSY_S if timeout is None else timeout)
        except psycopg.OperationalError:
            # psycopg's own error of a timeout is one of these; what comes later cannot be told from a late answer
            if self.pgconn.status == psycopg.pq.ConnStatus.OK and _is_waiting(self):
                self.pgconn.finish()
            raise


def _is_waiting(connection: psycopg.Connection[Any]) -> bool:
    return connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
