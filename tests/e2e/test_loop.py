"""A PACS that sends back everything it has, our results included, makes no work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_server import GatewayServer
from orthanc_server import OrthancServer, free_port

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

GATEWAY_PORT = free_port()


@pytest.fixture
def orthanc(tmp_path: Path, peer: Callable[[str], str]) -> Iterator[OrthancServer]:
    """A PACS that knows the gateway as a modality."""
    configuration = {"DicomModalities": {"voxgate": ["VOXGATE", "127.0.0.1", GATEWAY_PORT]}}
    with OrthancServer(peer("Orthanc"), tmp_path / "pacs", configuration=configuration) as server:
        yield server


def test_ten_rounds_of_everything_make_no_new_job(tmp_path: Path, orthanc: OrthancServer) -> None:
    source = tmp_path / "source"
    write_phantom(source, small=True)
    orthanc.upload(source)
    pacs = {"name": "pacs", "kind": "dimse", "host": "127.0.0.1"}
    with GatewayServer(
        tmp_path / "gateway",
        destinations=[{**pacs, "port": orthanc.dimse_port, "ae_title": orthanc.ae_title}],
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"scp": {"port": GATEWAY_PORT}},
    ) as gateway:
        send_everything(orthanc)
        (job,) = gateway.wait_for_jobs(1)
        assert (job["state"], orthanc.count("SEG"), orthanc.count("SR")) == ("done", 1, 1)
        for _ in range(10):
            send_everything(orthanc)
        # What came back is stated to be our own, once for each series; nothing was analysed.
        jobs = gateway.wait_for_jobs(3)
        time.sleep(2.5)  # longer than the quiet period, should the last round have begun anything
        assert gateway.wait_for_jobs(3) == jobs
        assert sorted((other["route"], other["code"]) for other in jobs if other["job_id"] != job["job_id"]) == [
            ("", "own-result"),
            ("", "own-result"),
        ]
        (again,) = [other for other in jobs if other["job_id"] == job["job_id"]]
        assert again == job
        assert orthanc.count() == len(list(source.iterdir())) + 2


def send_everything(orthanc: OrthancServer) -> None:
    """Let the PACS send all it has to the gateway, and wait for its last acknowledgement."""
    everything: list[Any] = orthanc.get("/series")
    assert (
        orthanc.post("/modalities/voxgate/store", {"Resources": everything, "Synchronous": True})[
            "FailedInstancesCount"
        ]
        == 0
    )
