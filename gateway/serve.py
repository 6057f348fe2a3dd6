"""``voxgate serve``: the whole gateway as one supervised family of processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from domain.errors import ConfigurationError
from gateway.config import Config
from gateway.logs import installation_secret, set_up_logs
from gateway.names import foreign_packages
from gateway.process import PREPARE, ROLES
from gateway.runfiles import StatusFile, only_supervisor
from gateway.supervisor import ChildState, ChildStatus, ProcessSpec, Supervisor

log = logging.getLogger(__name__)

_RECEIVERS = ("scp", "http")


def serve(config: Config, file: Path | None = None) -> None:
    """Run every part until SIGTERM or SIGINT; a second signal kills what is left.

    Raises
    ------
    ConfigurationError
        The installation or the store cannot be used.
    CannotStart
        A part does not start.
    """
    check_names()
    store = config.store.path
    os.umask(0o077)  # for the store, and for the parts that inherit it
    set_up_logs(level=config.log.level, style=config.log.format, key=installation_secret(store), process="serve")
    stop, at_once = threading.Event(), threading.Event()
    _on_signals(stop, at_once)
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
            Supervisor(_specs(file), on_change=changed).run(stop, at_once=at_once)
        finally:
            status.remove()


def check_names() -> None:
    """Refuse to run on foreign modules of our names."""
    foreign = foreign_packages()
    if foreign:
        listing = ", ".join(f"{name} ({where})" for name, where in sorted(foreign.items()))
        raise ConfigurationError(
            f"modules of other distributions stand where Voxgate's own should be: {listing}; "
            "install Voxgate into a virtual environment of its own"
        )


def _specs(file: Path | None) -> list[ProcessSpec]:
    return [
        ProcessSpec(role=role, argv=_argv(role, file), stop_order=0 if role in _RECEIVERS else 1) for role in ROLES
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
