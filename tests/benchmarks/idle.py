"""``make bench``: what ``voxgate serve`` costs while nobody sends anything, by process (Linux)."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from gateway_server import GatewayServer


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used; the kernel's own count in nanoseconds, not in ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    below = [int(child) for path in children for child in path.read_text().split()]
    return [pid, *(found for child in below for found in descendants(child))]


def role(pid: int) -> str:
    """Return which part a process is."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next((word for word in words if word in ("scp", "http", "worker", "infer")), "serve")


def main() -> None:
    """Run and print; the figures are for docs/performance.md, no limit is checked here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, GatewayServer(Path(temporary) / "gateway") as gateway:
        time.sleep(given.settle)
        pids = descendants(gateway.pids()["serve"])
        before = [cpu_s(pid) for pid in pids]
        time.sleep(given.seconds)
        used = [cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
        for pid, seconds in zip(pids, used, strict=True):
            print(f"{role(pid)}: {seconds:.3f} s, {100 * seconds / given.seconds:.2f} % of a core")
    print(f"idle gateway: {100 * sum(used) / given.seconds:.2f} % of a core (load {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main()
