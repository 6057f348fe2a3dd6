from __future__ import annotations

import logging
import time
from typing import Any, cast

import pytest

from pipeline.taking import Taker


class FlakyBell:
    """A bell at which nobody can wait at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.waits = 0

    def ring(self) -> None: ...

    def listen(self) -> None: ...

    def wait(self, timeout_s: float) -> None:
        self.waits += 1
        if self.waits <= self.failures:
            raise OSError(5, "broken")
        time.sleep(0.01)

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Looking(Taker):
    looks = 0

    def look(self) -> float:
        self.looks += 1
        return 0.0


def test_whatever_breaks_in_waiting_the_taker_looks_again_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    taker = Looking(cast(Any, None), FlakyBell(2), executor_id="", version="", queues={}, places={})
    with caplog.at_level(logging.WARNING):
        taker._thread.start()
        deadline = time.monotonic() + 20
        while taker.looks < 5 and taker._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert taker.looks >= 5
    taker.stop()
    assert [record.getMessage() for record in caplog.records] == ["could not look for tasks"]
