"""Engines that hang, crash or are killed, in the product as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_server import GatewayServer

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

# Python runs this in every process of the gateway: the engine does what the first line of a file says, and that line
# goes. PyDLL keeps the interpreter's lock while it sleeps, as native code that hangs does: no thread of ours runs.
SITE = """
import ctypes, os
from pathlib import Path

ORDERS = Path(os.environ["ENGINE_ORDERS"])

def _obey():
    orders = ORDERS.read_text().splitlines()
    ORDERS.write_text("\\n".join(orders[1:]))
    with ORDERS.with_suffix(".obeyed").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    match orders[:1]:
        case ["crash"]:
            os.abort()
        case ["hang"]:
            ctypes.PyDLL(None).sleep(600)
        case ["dawdle"]:
            ctypes.CDLL(None).sleep(600)

import sys
if "gateway.process" in sys.orig_argv and "infer" in sys.orig_argv:
    import importlib.util
    import inference.lungs.engine as lungs
    run = lungs.Lungs.run
    def obedient(self, case):
        _obey()
        return run(self, case)
    lungs.Lungs.run = obedient
"""


class Orders:
    """What the engine will do, one word for each of its runs; afterwards it works."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        self.folder = folder
        self._file = folder / "orders"
        self.give()

    def give(self, *words: str) -> None:
        self._file.write_text("\n".join(words))

    def obeyed_by(self) -> list[int]:
        """Return the processes in which the engine began to run, in order."""
        obeyed = self._file.with_suffix(".obeyed")
        return [int(line) for line in obeyed.read_text().split()] if obeyed.exists() else []

    def wait_for(self, runs: int) -> int:
        """Return the process of this run of the engine."""
        deadline = time.monotonic() + 60
        while len(self.obeyed_by()) < runs:
            assert time.monotonic() < deadline, self.obeyed_by()
            time.sleep(0.05)
        return self.obeyed_by()[runs - 1]


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orders:
    found = Orders(tmp_path / "site")
    monkeypatch.setenv("ENGINE_ORDERS", str(found.folder / "orders"))
    monkeypatch.setenv("GATEWAY_PYTHONPATH", str(found.folder))
    return found


@pytest.fixture
def gateway(tmp_path: Path, orders: Orders) -> Iterator[GatewayServer]:
    with GatewayServer(
        tmp_path / "gateway",
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"engines.lungs": {"deadline_s": 4}},
    ) as server:
        yield server


@pytest.fixture
def send(tmp_path: Path, gateway: GatewayServer, peer: Callable[[str], str]) -> Callable[[], None]:
    write_phantom(tmp_path / "series", small=True)

    def dcmsend() -> None:
        command = [peer("dcmsend"), "-aec", "VOXGATE", "+sd", "127.0.0.1", str(gateway.dimse_port)]
        subprocess.run([*command, str(tmp_path / "series")], check=True, capture_output=True, timeout=60)

    return dcmsend


def test_an_engine_that_hangs_is_killed_and_its_job_tried_again(
    orders: Orders, gateway: GatewayServer, send: Callable[[], None]
) -> None:
    orders.give("hang")
    send()
    (job,) = gateway.wait_for_jobs(1)
    assert job["state"] == "done"
    first, second = orders.obeyed_by()
    assert first != second
    assert not list((gateway.store / "run" / "crashes").iterdir())


def test_an_engine_that_stands_still_is_killed_at_its_deadline_too(
    orders: Orders, gateway: GatewayServer, send: Callable[[], None]
) -> None:
    orders.give("dawdle")
    send()
    os.kill(orders.wait_for(1), signal.SIGSTOP)
    assert [job["state"] for job in gateway.wait_for_jobs(1)] == ["done"]


def test_three_crashes_end_the_job_with_the_reason_and_a_retry_finishes_it(
    orders: Orders, gateway: GatewayServer, send: Callable[[], None]
) -> None:
    orders.give("crash", "crash", "crash", "crash")
    receiver = gateway.pids()["scp"]
    send()
    (job,) = gateway.wait_for_jobs(1)
    assert (job["state"], job["code"], len(orders.obeyed_by())) == ("failed", "engine-crashed", 3)
    assert job["reason"].count("SIGABRT") == 3
    assert gateway.pids()["scp"] == receiver
    orders.give()
    assert gateway.cli("jobs", "retry", job["job_id"]).returncode == 0
    (job,) = gateway.wait_for_jobs(1)
    assert (job["state"], job["attempt"]) == ("done", 2)


def test_kills_from_outside_do_not_count(orders: Orders, gateway: GatewayServer, send: Callable[[], None]) -> None:
    orders.give(*["dawdle"] * 4)
    send()
    for run in range(1, 5):
        os.kill(orders.wait_for(run), signal.SIGKILL)
    (job,) = gateway.wait_for_jobs(1)
    assert (job["state"], job["attempt"], len(orders.obeyed_by())) == ("done", 1, 5)
