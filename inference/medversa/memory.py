"""Whether a checkpoint fits into memory, told before it is read."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.device import OutOfDeviceMemory, Placement

_WORKING_BYTES = 3 << 30
"""Measured: the 3-D U-Net at 64 x 192 x 192 with its skips, and the cache of 1000 tokens of a 7 B model."""
_SMALL_WORKING_BYTES = 1 << 29
"""Without the 3-D encoder."""


def needed_bytes(weights: int, *, has_volumes: bool) -> int:
    """Return what ``weights`` bytes of parameters and one case need together."""
    return weights + (_WORKING_BYTES if has_volumes else _SMALL_WORKING_BYTES)


def free_bytes(place: Placement) -> int:
    """Return how much memory can still be had on a device, by its budget too."""
    if place.device.type == "cuda":
        used = torch.cuda.memory_allocated(place.device)
        kept = torch.cuda.memory_reserved(place.device) - used
        free = int(torch.cuda.mem_get_info(place.device)[0] + kept)
        return free if place.vram_gb is None else min(free, int(place.vram_gb * 2**30) - used)
    return min(_available(Path("/proc/meminfo")), *_cgroup(Path("/sys/fs/cgroup")))


def check_memory(needed: int, free: int, device: torch.device) -> None:
    """Refuse early.

    Raises
    ------
    OutOfDeviceMemory
        Says how much is needed and how much was found.
    """
    if needed > free:
        raise OutOfDeviceMemory(
            f"MedVersa needs {needed / 2**30:.1f} GiB on {device}, of which {free / 2**30:.1f} GiB are free."
        )


def _available(meminfo: Path) -> int:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return 1 << 62  # not Linux: unknown is no reason to refuse


def _cgroup(folder: Path) -> tuple[int, ...]:
    """Return what the container's limit leaves, where there is one (cgroup v2)."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        reclaimable = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return (int(limit) - int(used) + int(reclaimable.get("inactive_file", 0)),)
    except (OSError, ValueError):
        return (1 << 62,)
