"""Small files in ``<store>/run``: who serves this store, and how far it has come."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from domain.errors import ConfigurationError
from gateway.supervisor import ChildState, ChildStatus
from gateway.writable import obstacle

log = logging.getLogger(__name__)


def run_folder(store: Path) -> Path:
    """Return the folder, made where it is missing."""
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = store / "run"
    folder.mkdir(exist_ok=True)
    return folder


def check_writable(store: Path) -> None:
    """Make the folder and write in it, before any part starts and each says for itself that it cannot.

    Raises
    ------
    ConfigurationError
        The store cannot be made or written.
    """
    try:
        with TemporaryFile(dir=run_folder(store)):
            pass
    except OSError as error:
        raise unusable(store, str(error.strerror)) from error


def require_store(store: Path) -> None:
    """Ask what ``check_writable`` finds out, and make nothing.

    Raises
    ------
    ConfigurationError
        The store could not be made or written.
    """
    why_not = obstacle(store)
    if why_not is not None:
        raise unusable(store, why_not)


def unusable(store: Path, why: str) -> ConfigurationError:
    """Return the fault of a store that cannot be written, with the way out."""
    return ConfigurationError(
        f"store.path: {store} cannot be written: {why}; let this user write there, or choose another folder"
    )


@contextmanager
def only_supervisor(store: Path) -> Iterator[None]:
    """Hold the store's lock; the system lets go of it when this process ends, however it ends.

    Raises
    ------
    ConfigurationError
        Another supervisor serves this store.
    """
    path = run_folder(store) / "supervisor.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigurationError(
                f"store.path: {store} is served by another voxgate (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class StatusFile:
    """``run/status.json``: ports and process ids for ``voxgate demo``, tests and operators' scripts."""

    def __init__(self, store: Path) -> None:
        self.path = run_folder(store) / "status.json"

    def write(self, statuses: Sequence[ChildStatus]) -> None:
        """Replace the file in one step: a reader sees the old or the new one, never half of it."""
        ready = bool(statuses) and all(status.state is ChildState.READY for status in statuses)
        content = {
            "pid": os.getpid(),
            "state": "ready" if ready else "starting",
            "processes": {
                status.role: {
                    "state": status.state,
                    "pid": status.pid,
                    "restarts": status.restarts,
                    **status.facts,
                }
                for status in statuses
            },
        }
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
            temporary.replace(self.path)
        except OSError as error:  # a full disk must not end the supervisor, and with it every receiver
            log.warning("status file could not be written", extra={"errno": error.errno})
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Nobody serves any more."""
        self.path.unlink(missing_ok=True)


def read_status(store: Path) -> Mapping[str, Any] | None:
    """Return the status of whoever serves ``store`` now, or ``None``; a file left by a killed one does not count."""
    try:
        status = json.loads((store / "run" / "status.json").read_text())
        os.kill(int(status["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # It lives, and belongs to somebody else.
    return dict(status)
