"""Engines that hang, crash or are killed, in the product as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_orders import Orders
from gateway_server import GatewayServer

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orders]:
    with pytest.MonkeyPatch.context() as environment:
        found = Orders(tmp_path_factory.mktemp("orders") / "site")
        environment.setenv("ENGINE_ORDERS", str(found.folder / "orders"))
        environment.setenv("GATEWAY_PYTHONPATH", str(found.folder))
        yield found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, orders: Orders) -> Iterator[GatewayServer]:
    with serving(tmp_path_factory.mktemp("faults"), deadline_s=3) as server:
        yield server


def serving(folder: Path, *, deadline_s: int) -> GatewayServer:
    return GatewayServer(
        folder / "gateway",
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"engines.lungs": {"deadline_s": deadline_s}},
    )


class Case:
    """One series for one test, on a gateway that serves all of them."""

    def __init__(self, folder: Path, gateway: GatewayServer, program: str, orders: Orders) -> None:
        self._gateway = gateway
        self._series = write_phantom(folder, small=True, fresh=True).series_instance_uid
        self._command = [program, "-aec", "VOXGATE", "+sd", "127.0.0.1", str(gateway.dimse_port), str(folder)]
        self._orders = orders
        self._before = len(orders.obeyed_by())

    def send(self) -> None:
        subprocess.run(self._command, check=True, capture_output=True, timeout=60)

    def job(self) -> dict[str, Any]:
        """Return the series' job once it has ended."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            found = self._gateway.jobs(series=self._series)
            if found and found[0]["final"]:
                return found[0]
            time.sleep(0.1)
        raise AssertionError(self._gateway.log[-3000:])

    def ran_in(self) -> list[int]:
        """Return the processes in which the engine began to work on the series."""
        return self._orders.obeyed_by()[self._before :]

    def wait_for_run(self, number: int) -> int:
        return self._orders.wait_for(self._before + number)


@pytest.fixture
def case(tmp_path: Path, gateway: GatewayServer, peer: Callable[[str], str], orders: Orders) -> Case:
    return Case(tmp_path / "series", gateway, peer("dcmsend"), orders)


def test_an_engine_that_hangs_is_killed_and_its_job_tried_again(
    orders: Orders, gateway: GatewayServer, case: Case
) -> None:
    orders.give("hang")
    case.send()
    assert case.job()["state"] == "done"
    first, second = case.ran_in()
    assert first != second
    assert not list((gateway.store / "run" / "crashes").iterdir())


def test_an_engine_that_stands_still_is_killed_at_its_deadline_too(orders: Orders, case: Case) -> None:
    orders.give("dawdle")
    case.send()
    os.kill(case.wait_for_run(1), signal.SIGSTOP)
    assert case.job()["state"] == "done"


def test_three_crashes_end_the_job_with_the_reason_and_a_retry_finishes_it(
    orders: Orders, gateway: GatewayServer, case: Case
) -> None:
    orders.give("crash", "crash", "crash", "crash")
    receiver = gateway.pids()["scp"]
    case.send()
    job = case.job()
    assert (job["state"], job["code"], len(case.ran_in())) == ("failed", "engine-crashed", 3)
    assert job["reason"].count("SIGABRT") == 3
    assert gateway.pids()["scp"] == receiver
    orders.give()
    assert gateway.cli("jobs", "retry", job["job_id"]).returncode == 0
    job = case.job()
    assert (job["state"], job["attempt"]) == ("done", 2)


def test_kills_from_outside_do_not_count(tmp_path: Path, peer: Callable[[str], str], orders: Orders) -> None:
    # A gateway of its own: the more often a part has died lately, the longer the supervisor waits.
    with serving(tmp_path, deadline_s=60) as gateway:
        case = Case(tmp_path / "series", gateway, peer("dcmsend"), orders)
        orders.give(*["dawdle"] * 4)
        case.send()
        for run in range(1, 5):
            os.kill(case.wait_for_run(run), signal.SIGKILL)
        job = case.job()
    assert (job["state"], job["attempt"], len(case.ran_in())) == ("done", 1, 5)
