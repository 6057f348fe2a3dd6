"""The gateway as a user runs it: ``voxgate serve`` in a process of its own, free ports, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

ROOT = Path(__file__).resolve().parents[1]


def _value(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _toml(settings: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for name, section in settings.items():
        tables = [section] if isinstance(section, Mapping) else section
        header = f"[{name}]" if isinstance(section, Mapping) else f"[[{name}]]"
        for table in tables:
            lines += [header, *(f"{key} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    """Return the environment of the gateway; ``GATEWAY_PYTHONPATH`` goes before our packages."""
    path = os.pathsep.join(filter(None, (os.environ.get("GATEWAY_PYTHONPATH"), str(ROOT))))
    return {**os.environ, "PYTHONPATH": path}


class GatewayServer:
    """``voxgate serve`` with its store in ``folder``; ``start()`` after ``stop()`` or ``kill()`` finds it again."""

    def __init__(
        self,
        folder: Path,
        *,
        destinations: Sequence[Mapping[str, object]] = (),
        routes: Sequence[Mapping[str, object]] = (),
        sections: Mapping[str, Mapping[str, object]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = folder / "store"
        self.log_path = folder / "voxgate.log"
        self._file = folder / "voxgate.toml"
        settings: dict[str, Any] = {
            "store": {"path": self.store, "low_water_mb": 16},
            "scp": {"port": 0},
            "http": {"port": 0},
            "completeness": {"quiet_s": 1.0},
            "delivery": {"first_retry_s": 0.5, "max_retry_s": 2.0},
            "log": {"format": "json", "level": "debug"},
        }
        for name, section in (sections or {}).items():
            settings[name] = {**settings.get(name, {}), **section}
        self.store = Path(settings["store"]["path"])
        if destinations:
            settings["destinations"] = destinations
        if routes:
            settings["routes"] = routes
        self._file.write_text(_toml(settings))
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False
        if "VOXGATE_HTTP__TOKEN" in self._environment:
            self._session.headers["Authorization"] = f"Bearer {self._environment['VOXGATE_HTTP__TOKEN']}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._session.close()

    @property
    def log(self) -> str:
        """Everything that any of its processes wrote."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def status(self) -> dict[str, Any]:
        """``run/status.json`` as the supervisor wrote it last; empty before."""
        try:
            return dict(json.loads((self.store / "run" / "status.json").read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    @property
    def dimse_port(self) -> int:
        return int(self.status["processes"]["scp"]["port"])

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.status['processes']['http']['port']}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.http_url}/dicomweb"

    def pids(self) -> dict[str, int]:
        """Return the process ids of all parts by role, the supervisor's as ``serve``."""
        status = self.status
        found = {role: int(part["pid"]) for role, part in status.get("processes", {}).items() if part.get("pid")}
        if "pid" in status:
            found["serve"] = int(status["pid"])
        return found

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start and return when every part is ready."""
        if self._process is not None:
            raise RuntimeError("the gateway runs already")
        (self.store / "run" / "status.json").unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**_environment(), **self._environment},
            )
        self.wait_ready(timeout_s)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return when every part says that it is ready."""
        deadline = time.monotonic() + timeout_s
        while self.status.get("state") != "ready":
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the gateway did not start:\n{self.log[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> int | None:
        """Send SIGTERM and wait; return the exit status."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            status = self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL the supervisor; its children must die by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def kill_part(self, role: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """SIGKILL one part (``scp``, ``http``, ``worker``, ``infer``); the supervisor starts it again.

        Returns whether it was alive.
        """
        pid = self.pids().get(role)
        try:
            if pid is not None:
                os.kill(pid, number)
        except ProcessLookupError:
            return False
        return pid is not None

    def start_role(self, role: str) -> subprocess.Popen[bytes]:
        """Start ``voxgate serve --role ROLE``: a part of another host on the same database and store."""
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**_environment(), **self._environment},
            )

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log as it was written, a line of JSON each; half lines of killed processes are left out."""
        found = []
        for line in self.log.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict):
                found.append(entry)
        return found

    def jobs(self, **query: str) -> list[dict[str, Any]]:
        """Return ``GET /api/v1/jobs``."""
        answer = self._session.get(f"{self.http_url}/api/v1/jobs", params={"limit": "1000", **query}, timeout=30)
        answer.raise_for_status()
        return list(answer.json()["jobs"])

    def wait_for_jobs(self, count: int, *, timeout_s: float = 120.0) -> list[dict[str, Any]]:
        """Return the jobs once there are ``count`` of them and all have ended."""
        deadline = time.monotonic() + timeout_s
        found: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            try:
                found = self.jobs()
            except (requests.RequestException, KeyError):
                found = []  # between two lives of the HTTP part
            if len(found) >= count and all(job["final"] for job in found):
                return found
            time.sleep(0.1)
        states = [(job["state"], job["code"], job["reason"]) for job in found]
        raise AssertionError(f"{len(found)} jobs instead of {count}: {states}\n{self.log[-3000:]}")

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``voxgate ARGUMENTS`` against the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**_environment(), **self._environment, "VOXGATE_CONFIG": str(self._file)},
            timeout=120,
        )
