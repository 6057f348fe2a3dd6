"""Runs the HTTP application in gunicorn: worker processes, in each a thread for every request under way.

The arbiter listens and restarts a crashed worker; a worker makes the application after the fork, so that no
connection to the database is shared between processes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn, cast

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from domain.errors import ConfigurationError
from gateway.http import HttpSettings
from gateway.http_worker import prompt_worker
from gateway.lifeline import die_with_parent

log = logging.getLogger(__name__)

_BACKLOG = 128
_HEARTBEAT_S = 120
_KEEPALIVE_S = 30


def serve(settings: HttpSettings, factory: Callable[[], Flask], *, on_listening: Callable[[int], None]) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then end the process by ``SystemExit``.

    Parameters
    ----------
    factory
        Makes the application; called in the worker process.
    on_listening
        Called once, in the calling process, with the port that was bound. Connections are taken from then on.

    Raises
    ------
    ConfigurationError
        The server would listen beyond loopback without a token.
    OSError
        The port is taken, or the address is not this machine's.
    SystemExit
        Always, in the worker process too: the caller must have nothing to clean up that is shared with a fork.
    """
    if settings.is_exposed_without_token:
        raise ConfigurationError(
            "http.host is not a loopback address and http.token is empty: set a token, or "
            "http.allow_unauthenticated = true if something else keeps strangers away"
        )
    listener = _listen(settings)
    _Server(settings, factory, listener, on_listening).run()  # type: ignore[no-untyped-call]
    sys.exit(0)


def _listen(settings: HttpSettings) -> socket.socket:
    """Return a listening socket; bound here because gunicorn would try for seconds and hide the error."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    # Accepted connections inherit these (Linux). gunicorn knows no time limit for a peer that stands still, and a
    # handful of them would take every thread.
    pause = struct.pack("ll", settings.idle_timeout_s, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pause)
    return listener


class _Server(BaseApplication):
    def __init__(
        self,
        settings: HttpSettings,
        factory: Callable[[], Flask],
        listener: socket.socket,
        on_listening: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._factory = factory
        self._port: int = listener.getsockname()[1]
        # gunicorn takes the descriptor and closes it when it stops; two owners would leave a port that nobody serves.
        self._fd = listener.detach()
        self._on_listening = on_listening
        super().__init__()  # type: ignore[no-untyped-call]

    def load_config(self) -> None:
        config = cast(Config, self.cfg)  # load_default_config made it
        settings = self._settings
        worker = prompt_worker(settings.idle_timeout_s, settings.min_body_kb_s)
        options = {
            "bind": f"fd://{self._fd}",
            "proc_name": "voxgate-http",
            "workers": settings.processes,
            "worker_class": worker,
            "threads": settings.threads,
            # Of the worker's main loop, which no request blocks: it does not limit how long an upload takes.
            "timeout": _HEARTBEAT_S,
            "graceful_timeout": settings.graceful_timeout_s,
            "keepalive": _KEEPALIVE_S,
            "control_socket_disable": True,
            "accesslog": None,
            "errorlog": os.devnull,
            "logger_class": _ServerLog,
            "when_ready": self._when_ready,
            "post_fork": _post_fork,
            "child_exit": lambda _server, gone: worker.connections.note(gone.age, None),
        }
        for name, value in options.items():
            config.set(name, value)  # type: ignore[no-untyped-call]

    def load(self) -> Flask:
        return self._factory()

    def _when_ready(self, server: Arbiter) -> None:
        self._on_listening(self._port)


def _post_fork(server: Arbiter, worker: Worker) -> None:
    # Orphaned by a kill of the arbiter, the worker would hold the port until its last request is through.
    die_with_parent()
    if os.getppid() != worker.ppid:
        sys.exit(1)
    worker.log = _WorkerLog(worker.cfg)  # type: ignore[no-untyped-call]
    # Until the worker has handlers of its own it has the arbiter's, which would swallow the signal: the arbiter would
    # then wait for its end in vain.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _ServerLog(Logger):
    """Hands gunicorn's messages to our logging."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)  # type: ignore[no-untyped-call]
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)


class _WorkerLog(_ServerLog):
    """Withholds gunicorn's words in the worker: they quote request lines, header fields and pieces of bodies."""

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        log.warning("http server refused a request")

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        log.error("http server failed", extra={"error": _error_name()})

    def critical(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error(msg)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error(msg)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""


def _error_name() -> str:
    error = sys.exc_info()[0]
    return error.__name__ if error else ""
