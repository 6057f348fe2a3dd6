"""Where a torch engine runs: device, arithmetic and threads, by configuration and by what the machine has."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from domain.errors import EngineFailed, EngineUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_THREADS = 4
"""More do not pay for one slice at a time, and spinning threads on a loaded host make it many times slower."""
_NATIVE_BF16 = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and how an engine computes."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    vram_gb: float | None = None
    """What the process may hold of a GPU's memory while the engine computes; ``None``: all of it."""


class OutOfDeviceMemory(EngineUnavailable):
    """The device is out of memory."""


def placement(settings: Mapping[str, object]) -> Placement:
    """Return the placement that ``[engines.<name>]`` asks for with ``device``, ``precision`` and ``threads``.

    Raises
    ------
    EngineFailed
        A setting has no meaning.
    EngineUnavailable
        The named device is not there.
    """
    device = _device(str(settings.get("device") or "auto"))
    threads = settings.get("threads")
    return Placement(
        device=device,
        dtype=_dtype(str(settings.get("precision") or "auto"), device),
        threads=threads if isinstance(threads, int) else min(cpu_quota(), MOST_THREADS),
        vram_gb=float(budget) if isinstance(budget := settings.get("vram_gb"), int | float) else None,
    )


def fallback_of(settings: Mapping[str, object], place: Placement) -> Placement | None:
    """Return the CPU where ``[engines.<name>] cpu_fallback`` allows it after a device that is too small."""
    if not settings.get("cpu_fallback") or place.device.type == "cpu":
        return None
    return placement({**settings, "device": "cpu"})


def fitted(
    work: Callable[[Placement, int], T], place: Placement, *, batch: int, fallback: Placement | None = None
) -> T:
    """Return what ``work(place, batch)`` returns, with half the batch as long as the device is out of memory.

    When not even a batch of one fits, it is done on ``fallback``.

    Raises
    ------
    OutOfDeviceMemory
        It fits nowhere. Retryable: somebody else may have filled the device.
    """
    while True:
        try:
            with computing(place):
                return work(place, batch)
        except OutOfDeviceMemory:
            if batch > 1:
                batch //= 2
            elif fallback is not None:
                place, fallback = fallback, None
            else:
                raise
            log.warning("out of memory, again with less", extra={"device": place.device.type, "batch": batch})


@contextmanager
def computing(place: Placement) -> Iterator[None]:
    """Compute without gradients on ``place``; a full device is emptied and becomes a fault that may pass.

    Raises
    ------
    OutOfDeviceMemory
        The device, or what the engine may use of it, is full.
    """
    try:
        with bounded(place), torch.inference_mode():
            yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        # Frames of the traceback hold tensors: without them the cache can be given back.
        traceback.clear_frames(error.__traceback__)
        empty_cache(place.device)
        raise OutOfDeviceMemory(f"The device {place.device.type} is out of memory.") from None


@contextmanager
def bounded(place: Placement) -> Iterator[None]:
    """Keep to the threads of ``place``, and to what it may use of a GPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(place.threads)
    _limit(place)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a device is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On a CPU PyTorch raises a plain RuntimeError, of which only the words tell.
    words = ("DefaultCPUAllocator", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(said in str(error) for said in words)


def _limit(place: Placement) -> None:
    """Let the process hold as much of a GPU as this engine may, or all of it."""
    if place.device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(place.device).total_memory
    share = 1.0 if place.vram_gb is None else min(1.0, place.vram_gb * 2**30 / total)
    torch.cuda.set_per_process_memory_fraction(share, place.device)


def empty_cache(device: torch.device) -> None:
    """Give back what the process holds of a device and does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def cpu_quota() -> int:
    """Return how many CPUs this process may use: its affinity, and the container's quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return allowed


def _device(wanted: str) -> torch.device:
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda:0")
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if wanted in ("auto", "cpu"):
        return torch.device("cpu")
    kind, _, number = wanted.partition(":")
    if kind not in ("cuda", "mps") or (number and not number.isdecimal()):
        raise EngineFailed('The setting device must be "auto", "cpu", "mps", "cuda" or "cuda:<number>".')
    if kind == "mps" or int(number or 0) >= torch.cuda.device_count():
        raise EngineUnavailable("The device that the setting device names is not there.")
    return torch.device(wanted)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted not in ("auto", "fp32", "bf16"):
        raise EngineFailed('The setting precision must be "auto", "fp32" or "bf16".')
    if wanted == "auto":
        wanted = "bf16" if _has_native_bf16(device) else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def _has_native_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 is fast: where it is emulated it is slower than float32 and less exact."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in _NATIVE_BF16)
