"""``voxgate serve``: the whole gateway as one supervised family of processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from domain.errors import ConfigurationError
from gateway.config import Config
from gateway.crashes import CrashNotes
from gateway.devices import gpu_queues
from gateway.logs import set_up_logs
from gateway.names import foreign_packages
from gateway.process import PREPARE, ROLES
from gateway.runfiles import StatusFile, check_writable, only_supervisor, unusable
from gateway.supervisor import ChildState, ChildStatus, ProcessSpec, Supervisor
from store.secret import installation_secret

log = logging.getLogger(__name__)

_RECEIVERS = ("scp", "http")
_SILENT_S = 90.0
"""Workers speak every two seconds; the garbage collector, a slow disk or a busy machine may keep them from it."""


def serve(config: Config, file: Path | None = None) -> None:
    """Run every part until SIGTERM or SIGINT; a second signal kills what is left.

    Raises
    ------
    ConfigurationError
        The installation or the store cannot be used.
    CannotStart
        A part does not start.
    """
    store = config.store.path
    stop, at_once = _set_up(config)
    with only_supervisor(store):
        prepare(file, stop)
        if stop.is_set():
            return
        status = StatusFile(store)
        announce = _Announcement(config)

        def changed(statuses: tuple[ChildStatus, ...]) -> None:
            status.write(statuses)
            announce(statuses)

        try:
            supervisor = Supervisor(
                _specs((*ROLES, *gpu_queues(config)), file), on_change=changed, on_fault=_noting(store)
            )
            supervisor.run(stop, at_once=at_once)
        finally:
            status.remove()


def serve_role(config: Config, role: str, file: Path | None = None) -> None:
    """Run one part alone, supervised like all of them, beside other parts on the same database and store.

    ``gpu`` is a process for each CUDA device that an engine is configured for.

    Raises
    ------
    ConfigurationError
        The installation or the store cannot be used.
    CannotStart
        The part does not start.
    """
    roles = tuple(gpu_queues(config)) if role == "gpu" else (role,)
    if not roles:
        raise ConfigurationError('--role gpu: no engine has a CUDA device; set [engines.<name>] device = "cuda:0"')
    stop, at_once = _set_up(config)
    prepare(file, stop)
    if stop.is_set():
        return
    Supervisor(_specs(roles, file), on_fault=_noting(config.store.path)).run(stop, at_once=at_once)


def _set_up(config: Config) -> tuple[threading.Event, threading.Event]:
    """Check installation and store, begin to log, and return what signals set: to stop, and to stop at once."""
    check_names()
    store = config.store.path
    os.umask(0o077)  # for the store, and for the parts that inherit it
    check_writable(store)
    try:
        key = installation_secret(store)
    except OSError as error:  # e.g. a full disk, which still takes an empty file
        raise unusable(store, str(error.strerror)) from error
    set_up_logs(level=config.log.level, style=config.log.format, key=key, process="serve")
    stop, at_once = threading.Event(), threading.Event()
    _on_signals(stop, at_once)
    return stop, at_once


def _noting(store: Path) -> Callable[[Mapping[str, object], str], None]:
    """Return what keeps, for whoever tries the job next, that its engine ended by its own fault."""
    notes = CrashNotes(store)

    def note(what: Mapping[str, object], cause: str) -> None:
        log.error("engine ended by its own fault", extra={"job": what["job"], "cause": cause})
        try:
            notes.write(str(what["job"]), int(str(what["attempt"])), cause)
        except OSError as error:  # a full disk must not end the supervisor
            log.warning("the fault could not be noted", extra={"errno": error.errno})

    return note


def check_names() -> None:
    """Refuse to run on foreign modules of our names."""
    foreign = foreign_packages()
    if foreign:
        listing = ", ".join(f"{name} ({where})" for name, where in sorted(foreign.items()))
        raise ConfigurationError(
            f"modules of other distributions stand where Voxgate's own should be: {listing}; "
            "install Voxgate into a virtual environment of its own"
        )


def _specs(roles: Sequence[str], file: Path | None) -> list[ProcessSpec]:
    return [
        ProcessSpec(
            role=role,
            argv=_argv(role, file),
            stop_order=0 if role in _RECEIVERS else 1,
            silent_s=None if role in _RECEIVERS else _SILENT_S,
        )
        for role in roles
    ]


def _argv(role: str, file: Path | None) -> tuple[str, ...]:
    return (sys.executable, "-m", "gateway.process", role, *(("--config", str(file)) if file else ()))


def prepare(file: Path | None, stop: threading.Event) -> None:
    """Migrate and reconcile before any receiver runs, in a process of its own: the supervisor stays small."""
    Supervisor([ProcessSpec(role=PREPARE, argv=_argv(PREPARE, file))]).run_once(stop)


def _on_signals(stop: threading.Event, at_once: threading.Event) -> None:
    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            at_once.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


class _Announcement:
    """Says once, when everything is ready, where the gateway listens."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._said = False

    def __call__(self, statuses: tuple[ChildStatus, ...]) -> None:
        if self._said or not all(status.state is ChildState.READY for status in statuses):
            return
        self._said = True
        facts = {status.role: status.facts for status in statuses}
        log.info("voxgate is ready", extra={"serves": facts, "pid": os.getpid()})
        if sys.stderr.isatty():
            self._print(facts)

    def _print(self, facts: Mapping[str, Mapping[str, object]]) -> None:
        from rich.console import Console
        from rich.table import Table

        config = self._config
        table = Table(title="Voxgate is ready", show_header=False)
        scp, http = facts["scp"].get("port", config.scp.port), facts["http"].get("port", config.http.port)
        table.add_row("C-STORE, C-ECHO", f"{config.scp.ae_title} @ {config.scp.host}:{scp}")
        table.add_row("STOW-RS", f"http://{config.http.host}:{http}/dicomweb/studies")
        table.add_row("Store", str(config.store.path.resolve()))
        table.add_row("Routes", ", ".join(f"{r.name} → {r.engine}" for r in config.routes) or "none")
        table.add_row("Destinations", ", ".join(d.name for d in config.destinations) or "none: results stay here")
        Console(stderr=True).print(table)
