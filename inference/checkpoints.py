"""Where an operator's weights lie, and what identifies them; imports no model library."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from domain.errors import ConfigurationError

CONTAINERS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a checkpoint's folder, the preferred one first."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def folder_of(name: str, base: Path | None = None) -> Path:
    """Return the folder that ``name`` means: a folder (a relative one also from ``base``), or one in the hub's cache.

    Nothing is fetched here: 14 GB have no place inside a job with a deadline.

    Raises
    ------
    ConfigurationError
        There is neither.
    """
    for candidate in (Path(name), (base or Path()) / name):
        if candidate.is_dir():
            return candidate
    if _HUB_NAME.fullmatch(name):
        cached = _cached(name)
        if cached is not None:
            return cached
        raise ConfigurationError(
            f"{name} is neither a folder nor in the hub's cache; fetch it with: hf download {name} "
            "(a gated or private one needs HF_TOKEN)"
        )
    raise ConfigurationError(f"{name} is not a folder")


def _cached(name: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        found: str = snapshot_download(name, local_files_only=True)
    except (LocalEntryNotFoundError, ValueError):
        return None
    return Path(found)


def container_of(folder: Path) -> Path:
    """Return the file of weights in a checkpoint's folder.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    for name in CONTAINERS:
        if (folder / name).is_file():
            return folder / name
    raise ConfigurationError(f"{folder} holds neither {' nor '.join(CONTAINERS)}")


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file. The hub's cache names its large files by it, so that they need not be read."""
    stored = file.resolve()
    if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name):
        return stored.name
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
