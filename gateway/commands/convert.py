"""``voxgate weights convert``."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from domain.errors import ConfigurationError
from gateway.terminal import quiet_logs, say

_CONVERTERS = {"medsam2": "inference.medsam2.checkpoint"}
"""Modules with ``convert(source, target) -> number of tensors``, by engine."""


def convert_weights(source: Path, target: Path, *, engine: str) -> None:
    """Write ``source`` as safetensors; refuses a file that is not what the engine needs."""
    quiet_logs()
    if engine not in _CONVERTERS:
        raise ConfigurationError(f"--engine: must be one of {', '.join(sorted(_CONVERTERS))}")
    if not source.is_file():
        raise ConfigurationError(f"{source}: there is no such file")
    if target.suffix != ".safetensors":
        raise ConfigurationError(f"{target}: the name must end in .safetensors")
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError("not installed: torch, transformers (make models)")
    count = importlib.import_module(_CONVERTERS[engine]).convert(source, target)
    say(f"{count} tensors written to {target}")
