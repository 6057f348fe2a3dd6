"""When a failed delivery or step is tried again, and what counts as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from domain.errors import GatewayError, PeerUnreachable

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """``[delivery]``: the delay doubles from ``first_retry_s`` to ``max_retry_s``."""

    first_retry_s: float = 15.0
    max_retry_s: float = 3600.0
    give_up_after_h: float = 72.0
    """Then the delivery is dead; ``voxgate jobs retry`` starts it again."""

    def delay_s(self, failures: int) -> float:
        """Return the delay before the next attempt after ``failures`` (1, 2, …) failed ones."""
        return min(self.max_retry_s, self.first_retry_s * 2.0 ** min(failures - 1, 30))

    def attempts(self) -> int:
        """Return how many attempts fit into ``give_up_after_h``."""
        total_s, count = 0.0, 1
        while total_s < self.give_up_after_h * 3600.0 and count < 100_000:
            total_s += max(self.delay_s(count), 0.001)
            count += 1
        return count


def asked(destination: str, ask: Callable[[], T]) -> T:
    """Return what a destination answers.

    Raises
    ------
    PeerUnreachable
        Something broke on the way, whatever it was: an attempt at this destination that may be made again, and no
        fault of what the job's other destinations get.
    """
    try:
        return ask()
    except GatewayError:
        raise
    except Exception as error:
        log.exception("what a destination answers cannot be worked with", extra={"destination": destination})
        raise PeerUnreachable(f"a fault inside the gateway ({type(error).__name__}); see the log") from error
