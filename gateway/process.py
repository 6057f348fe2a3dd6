"""``python -m gateway.process ROLE``: the entry point of one part of the gateway."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from domain.errors import ConfigurationError, GatewayError
from gateway.config import Config, load_config
from gateway.lean import keep_out_decoders
from gateway.lifeline import Lifeline, die_with_parent
from gateway.logs import set_up_logs, silence_leaky_libraries
from gateway.sections import HttpSection, ScpSection
from store.secret import installation_secret

log = logging.getLogger("gateway.process")  # also when it runs as __main__

RECEIVERS = ("scp", "http")
ROLES = (*RECEIVERS, "worker", "infer")
PREPARE = "prepare"
"""Migrates the database and reconciles files and index; ends when that is done."""
_GPU = re.compile(r"gpu(-[0-9]+)?")
_PORT_TAKEN = {
    errno.EADDRINUSE: "is in use by another program",
    errno.EACCES: "needs more rights than this process has",
    errno.EADDRNOTAVAIL: "cannot be had: the host is not an address of this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part until it is told to stop; return the exit status."""
    parser = argparse.ArgumentParser(prog="gateway.process", description=__doc__)
    parser.add_argument("role", type=_role)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--lifeline", type=int)
    given = parser.parse_args(argv)
    stop = threading.Event()
    line = None
    if given.lifeline is not None:
        die_with_parent()
        line = Lifeline(given.lifeline)
        line.watch(stop)
        if given.role not in RECEIVERS:
            line.beat()
    try:
        config = load_config(given.config)
    except ConfigurationError as error:
        return _failed(line, str(error))
    if given.role in ("scp", PREPARE) or (given.role == "http" and not config.predict.enabled):
        keep_out_decoders()
    return run_role(given.role, config, stop, line)


def _role(text: str) -> str:
    """Return a role: one of ``ROLES``, or the queue of a device."""
    if text not in (*ROLES, PREPARE) and not _GPU.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(ROLES)} or gpu")
    return text


def run_role(role: str, config: Config, stop: threading.Event, line: Lifeline | None = None) -> int:
    """Run one part in this process until ``stop`` is set, by a signal or by the caller; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o077)  # what a part writes, patients' images above all, is for this user alone
    set_up_logs(
        level=config.log.level, style=config.log.format, key=installation_secret(config.store.path), process=role
    )
    silence_leaky_libraries()

    def ready(**facts: object) -> None:
        log.info("ready", extra={"serves": facts})
        if line is not None:
            line.report({"ready": facts})

    try:
        if role in ("scp", "http"):
            _check_port(config.scp if role == "scp" else config.http)
        _part(role, line)(config, ready, stop)
    except GatewayError as error:
        return _failed(line, str(error))
    except OSError as error:
        if role in ("scp", "http") and isinstance(error, socket.gaierror):
            return _failed(line, f"{role}.host: the name cannot be resolved")
        if error.errno not in _PORT_TAKEN or role not in RECEIVERS:
            log.exception("part failed")
            return _failed(line, f"{role} failed: {type(error).__name__}, errno {error.errno}")
        return _failed(line, _port_taken(role, config, error))
    except Exception as error:
        log.exception("part failed")
        return _failed(line, f"{role} failed: {type(error).__name__}; see the log")
    return 0


def _part(role: str, line: Lifeline | None) -> Callable[[Config, Callable[..., None], threading.Event], None]:
    from gateway import wiring

    def report(message: Mapping[str, object]) -> None:
        if line is not None:
            line.report(message)

    parts: dict[str, Callable[[Config, Callable[..., None], threading.Event], None]] = {
        "scp": wiring.run_scp,
        "http": wiring.run_http,
        "worker": wiring.run_worker,
        "infer": partial(wiring.run_infer, report=report),
        PREPARE: lambda config, ready, stop: wiring.prepare(config),
    }
    if role not in parts:
        return partial(wiring.run_gpu, queue=role, report=report)
    return parts[role]


def _check_port(section: ScpSection | HttpSection) -> None:
    """Fail at once, and in our own words, where the server underneath would try for seconds and then say little."""
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((section.host.strip("[]"), section.port))
        probe.listen(1)


def _port_taken(role: str, config: Config, error: OSError) -> str:
    """Return a sentence that names the setting to change."""
    section = config.scp if role == "scp" else config.http
    return f"{role}.port: port {section.port} of {section.host} {_PORT_TAKEN[error.errno or 0]}"


def _failed(line: Lifeline | None, why: str) -> int:
    if line is None:
        print(f"voxgate: {why}", file=sys.stderr)
    else:
        line.report({"failed": why})
    return 1


if __name__ == "__main__":
    sys.exit(main())
