"""Two worker hosts on one PostgreSQL database and one store: they share the work; one takes over from the other."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from engine_orders import Orders
from gateway_server import GatewayServer

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]


def test_work_is_shared_and_a_dead_hosts_work_taken_over(
    tmp_path: Path, postgres_url: str, peer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders(tmp_path / "site")
    monkeypatch.setenv("ENGINE_ORDERS", str(orders.folder / "orders"))
    monkeypatch.setenv("GATEWAY_PYTHONPATH", str(orders.folder))
    gateway = GatewayServer(
        tmp_path / "gateway",
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"database": {"url": postgres_url}},
    )
    with ExitStack() as stack:
        stack.enter_context(gateway)
        second = {role: gateway.start_role(role) for role in ("worker", "infer")}
        for process in second.values():
            stack.callback(process.wait, 40)
            stack.callback(process.terminate)
        _wait_until_ready(gateway, 6)

        def send(numbers: range) -> None:
            for number in numbers:
                write_phantom(tmp_path / f"series{number}", small=True, seed=number)
                command = [peer("dcmsend"), "-aec", "VOXGATE", "+sd", "127.0.0.1", str(gateway.dimse_port)]
                subprocess.run([*command, str(tmp_path / f"series{number}")], check=True, capture_output=True)

        orders.give(*["nap"] * 6)
        send(range(6))
        assert {job["state"] for job in gateway.wait_for_jobs(6)} == {"done"}
        assert len(orders.obeyed_by()) == 6  # each engine ran once
        assert len(set(orders.obeyed_by())) == 2  # on both hosts

        # The first host's engines stand still, so that the second takes the next job, and dies of it.
        first = gateway.pids()["infer"]
        os.kill(first, signal.SIGSTOP)
        orders.give("dawdle")
        send(range(6, 7))
        assert orders.wait_for(7) != first
        os.kill(first, signal.SIGCONT)
        for process in second.values():
            process.kill()
        killed = time.monotonic()
        assert orders.wait_for(8) == first
        taken_s = time.monotonic() - killed
        assert {job["state"] for job in gateway.wait_for_jobs(7)} == {"done"}
        print(f"\nthe other host's job began again {taken_s:.1f} s after its death")
        assert taken_s < 15


def _wait_until_ready(gateway: GatewayServer, parts: int) -> None:
    """Wait until the supervisors of both hosts have heard of all their parts."""
    deadline = time.monotonic() + 60
    while sum(line.get("message") == "process ready" for line in gateway.log_lines()) < parts:
        assert time.monotonic() < deadline, gateway.log[-3000:]
        time.sleep(0.1)
