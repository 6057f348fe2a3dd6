"""Where an engine's cases wait, and whether a device is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from domain.engine import queue_of_device
from gateway.config import Config
from gateway.devices import gpu_queues
from gateway.sections import EngineSection
from inference.devices import device_fault
from inference.registry import Registry


@pytest.mark.parametrize(
    ("device", "queue"),
    [
        ("cuda", "gpu"), ("cuda:0", "gpu"), ("cuda:1", "gpu-1"), ("cuda:12", "gpu-12"),
        ("", None), ("cpu", None), ("auto", None), ("mps", None),
    ],
)  # fmt: skip
def test_every_cuda_device_has_a_queue_and_nothing_else(device: str, queue: str | None) -> None:
    assert queue_of_device(device) == queue
    assert Registry({"lungs": {"device": device}}).manifest("lungs").device == (queue or "cpu")


def test_each_device_of_an_enabled_engine_gets_one_process() -> None:
    engines = {
        "a": EngineSection(device="cuda:1"),
        "b": EngineSection(device="cuda:1"),
        "c": EngineSection(device="cuda"),
        "d": EngineSection(device="cuda:2", enabled=False),
        "e": EngineSection(),
    }
    assert gpu_queues(Config.model_construct(engines=engines)) == {"gpu": "cuda", "gpu-1": "cuda:1"}


@pytest.mark.parametrize(
    ("there", "device", "fault"),
    [
        (0, "cuda:0", "this host has no CUDA device"),
        (2, "cuda:2", "this host has 2 CUDA device(s), counted from 0"),
        (2, "cuda:1", None),
        (1, "cuda", None),
    ],
)
def test_a_device_that_is_not_there_is_said_to_be_missing(
    there: int, device: str, fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(
        "class cuda:\n"
        f"    is_available = staticmethod(lambda: {there > 0})\n"
        f"    device_count = staticmethod(lambda: {there})\n"
    )
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert device_fault(device) == fault
    monkeypatch.delitem(sys.modules, "torch")


def test_without_pytorch_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert device_fault("cuda:0") == "PyTorch is not installed (make models)"
