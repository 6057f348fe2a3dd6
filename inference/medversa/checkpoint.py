"""The files of a checkpoint: where they are, what they hold, and their tensors one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domain.errors import ConfigurationError
from inference.checkpoints import container_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Tensors by the names of the file, read when asked for; and ``config.json``."""

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    """Returns one tensor in the dtype of the file."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: not readable as JSON") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: not a JSON object")
    return found


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint without reading its tensors.

    Raises
    ------
    ConfigurationError
        A file is missing or is not what its name says.
    """
    config, path = read_json(folder / "config.json"), container_of(folder)
    try:
        shapes, read = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{path}: not readable as a checkpoint ({type(error).__name__})") from error
    return Checkpoint(path=path, config=config, shapes=shapes, read=read)


_Opened = tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]


def _safetensors(path: Path) -> _Opened:
    from safetensors import safe_open

    file = safe_open(path, framework="pt")
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - it is no mapping

    def read(key: str) -> Tensor:
        found: Tensor = file.get_tensor(key)
        return found

    return shapes, read


def _pickled(path: Path) -> _Opened:
    """Open a torch file; a training checkpoint holds the weights under ``model``. Nothing in it is executed."""
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigurationError(f"{path}: holds no state dict")
    tensors: dict[str, Tensor] = found
    return {key: tuple(value.shape) for key, value in tensors.items()}, tensors.__getitem__
