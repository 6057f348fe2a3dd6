"""Which CUDA devices engines are configured for."""

from __future__ import annotations

from domain.engine import queue_of_device
from gateway.config import Config


def gpu_queues(config: Config) -> dict[str, str]:
    """Return the CUDA devices of ``[engines.*]`` by their queues; each gets a process of its own."""
    found = {queue_of_device(engine.device): engine.device for engine in config.engines.values() if engine.enabled}
    return {queue: device for queue, device in sorted(found.items(), key=str) if queue is not None}
