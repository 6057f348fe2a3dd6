"""``[engines.*] device = "cuda:0"``: a process of its own, with the device and without."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gateway_server import GatewayServer

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

# Says what the test wants of the host: the engine that runs needs no PyTorch, and where it waits is what counts here.
TORCH = """
import os

class Tensor: ...

class cuda:
    is_available = staticmethod(lambda: os.environ["TEST_CUDA_DEVICES"] != "0")
    device_count = staticmethod(lambda: int(os.environ["TEST_CUDA_DEVICES"]))
"""


def job_of(gateway: GatewayServer, wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = gateway.jobs()
        if found and wanted(found[0]):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(gateway.log[-3000:])


def test_cases_wait_with_their_reason_until_the_device_is_there(
    tmp_path: Path, peer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text(TORCH)
    monkeypatch.setenv("GATEWAY_PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("TEST_CUDA_DEVICES", "0")
    write_phantom(tmp_path / "series", small=True)
    gateway = GatewayServer(
        tmp_path / "gateway",
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"engines.lungs": {"device": "cuda:0"}},
    )
    with gateway:
        assert gateway.status["processes"]["gpu"]["fault"] == "cuda:0 cannot be used: this host has no CUDA device"
        address = ["127.0.0.1", str(gateway.dimse_port)]
        command = [peer("dcmsend"), "-aec", "VOXGATE", "+sd", *address, str(tmp_path / "series")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        job = job_of(gateway, lambda job: bool(job["reason"]))
        assert job["state"] == "queued"
        assert "this host has no CUDA device" in job["reason"]
        assert "--role gpu" in job["reason"]
        gateway.stop()
        monkeypatch.setenv("TEST_CUDA_DEVICES", "1")
        gateway.start()
        assert gateway.status["processes"]["gpu"]["device"] == "cuda:0"
        job = job_of(gateway, lambda job: bool(job["final"]))
        assert job["state"] == "done"
