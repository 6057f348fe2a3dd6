"""An engine that hangs, crashes or naps on order, inside the product as a user runs it."""

from __future__ import annotations

import time
from pathlib import Path

# Python runs this in every process of the gateway: the engine does what the first line of a file says, and that line
# goes. PyDLL keeps the interpreter's lock while it sleeps, as native code that hangs does: no thread of ours runs.
SITE = """
import ctypes, os
from pathlib import Path

ORDERS = Path(os.environ["ENGINE_ORDERS"])

def _obey():
    orders = ORDERS.read_text().splitlines()
    ORDERS.write_text("\\n".join(orders[1:]))
    with ORDERS.with_suffix(".obeyed").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    match orders[:1]:
        case ["crash"]:
            os.abort()
        case ["hang"]:
            ctypes.PyDLL(None).sleep(600)
        case ["dawdle"]:
            ctypes.CDLL(None).sleep(600)
        case ["nap"]:
            ctypes.CDLL(None).sleep(1)

import sys
if "gateway.process" in sys.orig_argv and "infer" in sys.orig_argv:
    import importlib.util
    import inference.lungs.engine as lungs
    run = lungs.Lungs.run
    def obedient(self, case):
        _obey()
        return run(self, case)
    lungs.Lungs.run = obedient
"""


class Orders:
    """What the engine will do, one word for each of its runs; afterwards it works."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        self.folder = folder
        self._file = folder / "orders"
        self.give()

    def give(self, *words: str) -> None:
        self._file.write_text("\n".join(words))

    def obeyed_by(self) -> list[int]:
        """Return the processes in which the engine began to run, in order."""
        obeyed = self._file.with_suffix(".obeyed")
        return [int(line) for line in obeyed.read_text().split()] if obeyed.exists() else []

    def wait_for(self, runs: int) -> int:
        """Return the process of this run of the engine."""
        deadline = time.monotonic() + 60
        while len(self.obeyed_by()) < runs:
            assert time.monotonic() < deadline, self.obeyed_by()
            time.sleep(0.05)
        return self.obeyed_by()[runs - 1]
