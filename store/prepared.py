"""Statements that go straight to the driver, for what is done once for every instance.

On its way through SQLAlchemy a statement takes ten times what SQLite needs to execute it, all of it Python, which
runs for one receiver at a time.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]
_Convert = Callable[[Any], Any]


class Prepared:
    """A statement that SQLAlchemy wrote once, in the words of one database.

    Parameters
    ----------
    given
        The columns of an INSERT; ignored otherwise.
    """

    def __init__(
        self, statement: Select[Any] | Insert | Update, dialect: Dialect, *, given: Iterable[str] = ()
    ) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(given) or None)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("only SQL can be prepared")
        self._text = str(compiled)
        # Values go by place to one driver, by name to the other.
        self._places = compiled.positiontup if compiled.positional else None
        types = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        giving = {name: kind.bind_processor(dialect) for name, kind in types.items()}
        self._giving: dict[str, _Convert] = {name: convert for name, convert in giving.items() if convert}
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._row: Any = namedtuple("Row", [str(column.key) for column in columns])  # type: ignore[misc]
        taking = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._taking: list[tuple[int, _Convert]] = [(at, convert) for at, convert in enumerate(taking) if convert]

    def rows(self, connection: Connection, values: Values) -> list[Any]:
        """Return what is found, with an attribute for each column."""
        return [self._row._make(self._taken(found)) for found in self._run(connection, [values])]

    def run(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Execute once for each of ``rows``."""
        self._run(connection, rows)

    def _run(self, connection: Connection, rows: Sequence[Values]) -> list[Sequence[Any]]:
        try:
            cursor = connection.connection.cursor()
            try:
                if len(rows) == 1:
                    cursor.execute(self._text, self._given(rows[0]))
                else:
                    cursor.executemany(self._text, [self._given(values) for values in rows])
                return list(cursor.fetchall()) if self._row._fields else []
            finally:
                cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            raise _said_by_sqlalchemy(connection, error) from error

    def _given(self, values: Values) -> Any:
        if self._giving:
            values = {**values, **{name: convert(values[name]) for name, convert in self._giving.items()}}
        return values if self._places is None else [values[name] for name in self._places]

    def _taken(self, found: Sequence[Any]) -> Sequence[Any]:
        if not self._taking:
            return found
        taken = list(found)
        for at, convert in self._taking:
            taken[at] = convert(taken[at])
        return taken


def execute_plainly(connection: Connection, text: str) -> None:
    """Execute a word of the database, such as BEGIN."""
    try:
        connection.connection.cursor().execute(text)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _said_by_sqlalchemy(connection, error) from error


def _said_by_sqlalchemy(connection: Connection, error: Any) -> DBAPIError:
    """Return a driver's error as SQLAlchemy raises it; a connection that it ended is not used again."""
    driver = connection.dialect.loaded_dbapi
    kind = IntegrityError if isinstance(error, driver.IntegrityError) else DBAPIError
    if connection.dialect.is_disconnect(error, connection.connection.driver_connection, None):
        connection.invalidate(error)
    return kind(None, None, error)
