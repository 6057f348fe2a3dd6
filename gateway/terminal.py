"""What the command line has in common: tables, progress, and faults in one sentence."""

from __future__ import annotations

import json
import logging
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from domain.errors import ConfigurationError, GatewayError
from gateway.logs import set_up_logs

DONE, FAILED, USAGE = 0, 1, 2

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
    try:
        command()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED if error.code else DONE
    except ConfigurationError as error:
        return _said(str(error), USAGE)
    except GatewayError as error:
        return _said(str(error), FAILED)
    except BrokenPipeError:
        # The reader of our output has seen enough; Python would complain once more when it flushes at exit.
        sys.stdout = None
        return FAILED
    except OSError as error:
        return _said(f"{error.strerror or type(error).__name__}", FAILED)
    except Exception as error:
        logging.getLogger("gateway").debug("command broke", exc_info=True)
        return _said(f"a fault inside Voxgate ({type(error).__name__})", FAILED)
    return DONE


def _said(sentence: str, status: int) -> int:
    print(f"voxgate: {sentence}", file=sys.stderr)
    return status
