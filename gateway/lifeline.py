"""The child's end of the line to its supervisor: what it reports, and how it ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_GRACE_S = 1.0
_BEAT_S = 2.0


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; elsewhere nothing happens.

    The setting does not pass to processes forked later: each must ask for itself.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Lifeline:
    """One end of a socket pair whose other end lies in the supervisor alone."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._sending = threading.Lock()
        os.set_inheritable(fd, False)

    def report(self, message: Mapping[str, object]) -> None:
        """Tell the supervisor; a supervisor that is gone hears nothing."""
        with contextlib.suppress(OSError), self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def beat(self) -> None:
        """Say again and again that this process lives and its threads run."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self.report({"alive": True})
            time.sleep(_BEAT_S)

    def watch(self, stop: threading.Event) -> None:
        """End this process soon after the supervisor is gone, orderly if that is quick.

        This holds where ``die_with_parent`` does not, and where the supervisor died before this process asked.
        """
        threading.Thread(target=self._wait_for_the_end, args=(stop,), name="lifeline", daemon=True).start()

    def _wait_for_the_end(self, stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(64):
                pass
        stop.set()
        time.sleep(_GRACE_S)
        os._exit(70)
