"""Runs the HTTP application with a fake behind it in a process of its own: ``python http_process.py --sink discard``.

The first line it prints is the port.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flask import Flask
from http_fakes import DiscardingSink, FolderSink, ListedJobs, NotingIndex, ScriptedSink

from domain.errors import OutOfSpace
from domain.ports import InstanceSink
from gateway.http import HttpSettings, create_app
from gateway.http_server import serve

_HELD: list[object] = []


@dataclass(frozen=True)
class LiveServer:
    """A running server."""

    port: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def studies(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicomweb/studies"

    @property
    def workers(self) -> list[int]:
        """Process ids of gunicorn's workers that run."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    @property
    def worker(self) -> int:
        """Process id of a worker."""
        for _ in range(200):
            if found := self.workers:
                return found[0]
            time.sleep(0.02)
        raise AssertionError("no worker came up")

    @property
    def peak_rss_mb(self) -> float:
        """Largest resident set of arbiter and worker so far, in MiB."""
        sizes = [
            int(line.split()[1]) / 1024
            for pid in (self.process.pid, self.worker)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        ]
        return max(sizes)


@contextmanager
def live_server(folder: Path, *arguments: str) -> Iterator[LiveServer]:
    """Run this module as a process until the block ends."""
    log = folder / "server.log"
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    root = Path(__file__).resolve().parents[1]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests")))}
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ)
    try:
        yield LiveServer(_port(process.stdout, log), process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _port(output: IO[str] | None, log: Path) -> int:
    line = output.readline() if output is not None else ""
    if not line:
        raise AssertionError(f"the server did not start: {log.read_text()}")
    return int(json.loads(line)["port"])


def _sink(name: str) -> InstanceSink:
    if name == "discard":
        return DiscardingSink()
    if name == "full":
        return ScriptedSink(fail_with=OutOfSpace(), write_fails_after=1 << 20)
    return FolderSink(Path(name))


def _stored(folder: Path) -> InstanceSink:
    from pipeline.intake import Intake
    from store.settings import StoreSettings
    from store.store import open_store

    # Entered for the life of the worker process: the store is made for being killed.
    opened = open_store(StoreSettings(path=folder, low_water_mb=1))
    _HELD.append(opened)
    return Intake(opened.__enter__().instances)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sink", default="discard", help="discard, full, or a folder")
    parser.add_argument("--store", type=Path, help="a migrated store to use in place of a fake")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="")
    parser.add_argument("--threads", type=int, default=HttpSettings().threads)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--idle-timeout", type=int, default=60)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG)
    settings = HttpSettings(
        port=arguments.port,
        token=arguments.token,
        processes=arguments.processes,
        threads=arguments.threads,
        idle_timeout_s=arguments.idle_timeout,
        graceful_timeout_s=5,
    )

    def factory() -> Flask:
        index, jobs = NotingIndex(), ListedJobs()
        return create_app(
            _stored(arguments.store) if arguments.store else _sink(arguments.sink),
            index.as_index(),
            jobs.as_log(),
            settings,
            lambda: {"status": "ok", "pid": os.getpid()},
        )

    serve(settings, factory, on_listening=lambda port: print(json.dumps({"port": port}), flush=True))


if __name__ == "__main__":
    main()
