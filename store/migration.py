"""Creates the index and brings it up to date, whoever else tries at the same moment."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from store.database import Database, translated

VERSION_TABLE = "voxgate_version"
_LOCK = 0x766F7867  # "voxg": one number for every Voxgate on a PostgreSQL database


def migrate(url: URL) -> None:
    """Bring the index at ``url`` up to date.

    Raises
    ------
    StorageError
        The database cannot be reached or written.
    """
    # Large tables take their time, and so does another host that migrates them at this moment.
    database = Database(url, is_patient=True)
    try:
        with ExitStack() as stack:
            if database.is_sqlite:
                stack.enter_context(_file_lock(Path(f"{url.database}.migrating")))
            connection = stack.enter_context(database.write())
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            _upgrade(connection)
    finally:
        database.close()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    with translated():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
