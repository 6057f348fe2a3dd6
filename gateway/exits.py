"""What ended a child process: its own fault, or somebody else."""

from __future__ import annotations

import signal
from pathlib import Path

_OWN_SIGNALS = {
    signal.SIGSEGV: "it touched memory that is not its own (SIGSEGV)",
    signal.SIGBUS: "it touched memory that is not there (SIGBUS)",
    signal.SIGABRT: "it aborted (SIGABRT)",
    signal.SIGILL: "it ran into an instruction that this processor does not know (SIGILL)",
    signal.SIGFPE: "it divided by zero (SIGFPE)",
}
OUT_OF_MEMORY = "the system killed it for want of memory"
_CGROUP_V2 = Path("/sys/fs/cgroup/memory.events")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory/memory.oom_control")
_SYSTEM = Path("/proc/vmstat")


def own_fault(returncode: int, *, oom_kills: int) -> str | None:
    """Return in words what a child died of by its own fault, or ``None`` for a kill from outside and an orderly end.

    Parameters
    ----------
    returncode
        As ``subprocess`` has it: negative for a signal.
    oom_kills
        How many processes the kernel killed for want of memory while the child was working. A process that got
        SIGKILL meanwhile is taken to be one of them; any other SIGKILL came from a person or a program.
    """
    if returncode > 0:
        return f"it ended by itself with exit status {returncode}"
    if returncode == 0:
        return None
    if -returncode == signal.SIGKILL:
        return OUT_OF_MEMORY if oom_kills > 0 else None
    return _OWN_SIGNALS.get(signal.Signals(-returncode))


def count_oom_kills() -> int:
    """Return how often the kernel has killed for want of memory: in this container where it says so, else at all."""
    for path in (_CGROUP_V2, _CGROUP_V1, _SYSTEM):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
