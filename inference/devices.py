"""Whether a device is there, asked without loading an engine."""

from __future__ import annotations

import importlib
import importlib.util


def device_fault(device: str) -> str | None:
    """Return why this host cannot compute on a CUDA device (``cuda``, ``cuda:<number>``), ``None`` where it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (make models)"
    torch = importlib.import_module("torch")
    count = int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) < count:
        return None
    return f"this host has {count} CUDA device(s), counted from 0" if count else "this host has no CUDA device"
