"""What the command line has in common: tables, progress, and faults in one sentence."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from domain.errors import ConfigurationError, GatewayError
from gateway.logs import set_up_logs

DONE, FAILED, USAGE = 0, 1, 2
UNWRITTEN = "the output cannot be written"

people = Console(stderr=True)
"""For progress and remarks; what a script reads goes to stdout."""


def say(sentence: str) -> None:
    """Write a remark to stderr."""
    people.print(sentence, highlight=False, markup=False, soft_wrap=True)


def printable(path: Path) -> str:
    """Return a path as one line that cannot steer a terminal; file names may hold any byte."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def print_json(data: object) -> None:
    """Write one JSON document to stdout."""
    json.dump(data, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a table to stdout; as wide as the terminal, or as needed where there is none."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def quiet_logs() -> None:
    """Let only warnings through, for commands that speak to people."""
    set_up_logs(level="warning", style="text", key=secrets.token_bytes(32), process="")


@contextmanager
def steps_shown() -> Iterator[Callable[[str, float], None]]:
    """Yield a function to call with the current step and the share that is done (0 to 1)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)


def exit_status(command: Callable[[], object]) -> int:
    """Run a command; say in one sentence what went wrong, and return the exit status."""
    stand_in_for_closed_streams()
    return _written(_status(command))


def _status(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED if error.code else DONE
    except ConfigurationError as error:
        return _said(str(error), USAGE)
    except GatewayError as error:
        return _said(str(error), FAILED)
    except BrokenPipeError:
        return FAILED  # the reader of our output has seen enough
    except OSError as error:
        return _said(f"{error.strerror or type(error).__name__}", FAILED)
    except Exception as error:
        logging.getLogger("gateway").debug("command broke", exc_info=True)
        return _said(f"a fault inside Voxgate ({type(error).__name__})", FAILED)
    return DONE


def _written(status: int) -> int:
    """Write out what waits in the buffer of stdout, and say so where that cannot be done."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more when it ends, and complain in its own words
        with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if status == DONE and not isinstance(error, BrokenPipeError):
            return _said(f"{UNWRITTEN}: {error.strerror}", FAILED)
        return status or FAILED
    return status


def stand_in_for_closed_streams() -> None:
    """Give a process whose standard streams were closed others, before a file of its own gets their numbers.

    Who wants to write to a closed stdout learns it; remarks on a closed stderr are lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)


class _Closed(io.TextIOBase):
    """A stdout that somebody has closed."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, f"{UNWRITTEN}: stdout is closed")


def _said(sentence: str, status: int) -> int:
    print(f"voxgate: {sentence}", file=sys.stderr)
    return status
