"""``voxgate serve`` as a whole: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_server import ROOT, GatewayServer

SERVE = [sys.executable, "-m", "gateway.cli", "serve"]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path / "gateway") as running:
        yield running


def serve_briefly(toml: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "other.toml"
    file.write_text(toml)
    return subprocess.run(
        [*SERVE, "--config", str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``."""
    try:
        children = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()
    return children | {deeper for child in children for deeper in descendants(child)}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_left_soon_after_the_supervisor_was_killed(gateway: GatewayServer) -> None:
    family = descendants(gateway.pids()["serve"])
    assert len(family) >= 5
    gateway.kill()
    deadline = time.monotonic() + 2
    while any(map(lives, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in family if lives(pid)]  # nor does anything of theirs listen any more
    gateway.start()
    assert is_listening(gateway.dimse_port)


def test_a_killed_part_comes_back_and_says_where_it_listens(gateway: GatewayServer) -> None:
    before = gateway.pids()
    gateway.kill_part("http")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = gateway.status
        if status["state"] == "ready" and status["processes"]["http"]["restarts"] == 1:
            break
        time.sleep(0.05)
    assert gateway.jobs() == []
    assert gateway.pids()["scp"] == before["scp"]


def test_stops_in_order_and_leaves_no_status_behind(gateway: GatewayServer) -> None:
    family = descendants(gateway.pids()["serve"])
    assert gateway.stop() == 0
    assert gateway.status == {}
    assert not any(map(lives, family))
    assert "Traceback" not in gateway.log
    assert not list((gateway.store / "tmp").iterdir())


def test_a_second_gateway_on_the_store_is_refused(gateway: GatewayServer, tmp_path: Path) -> None:
    done = serve_briefly(f'[store]\npath = "{gateway.store}"\n', tmp_path)
    assert done.returncode == 2
    assert f"is served by another voxgate (process {gateway.pids()['serve']})" in done.stderr


def test_a_port_in_use_ends_it_with_the_name_of_the_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve_briefly(
            f'[store]\npath = "{tmp_path / "store"}"\n[scp]\nport = 0\n[http]\nport = {port}', tmp_path
        )
    assert done.returncode == 1
    assert f"voxgate: http.port: port {port} of 127.0.0.1 is in use by another program" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_part_runs_alone_in_the_foreground(tmp_path: Path) -> None:
    (tmp_path / "voxgate.toml").write_text('[store]\npath = "store"\n[scp]\nport = 0\n[log]\nformat = "json"')
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "gateway.process", "prepare"], cwd=tmp_path, env=environ, check=True)
    with subprocess.Popen(
        [*SERVE, "--role", "scp"], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
    ) as alone:
        assert alone.stderr is not None
        assert next(line for line in alone.stderr if '"message": "ready"' in line)
        alone.send_signal(signal.SIGTERM)
        assert alone.wait(timeout=20) == 0
