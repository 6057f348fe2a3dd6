"""When a failed delivery or step is tried again."""

from __future__ import annotations

from dataclasses import dataclass


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
