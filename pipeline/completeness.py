"""When a series is taken to be whole: by evidence first, then by silence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.series import SeriesArrival


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessSettings:
    """``[completeness]``."""

    quiet_s: float = 10.0
    """A series is whole when nothing has arrived for this long."""
    max_wait_s: float = 3600.0
    """Counted from the first instance; then the series is taken as it is, even if still arriving or short."""
    drawing_wait_s: float = 3600.0
    """A drawing waits for its images so long; counted from its arrival."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a series may be frozen now, and why or why not."""

    ready: bool
    reason: str


def readiness(
    arrival: SeriesArrival, now: datetime, settings: CompletenessSettings, *, conflicts: int = 0
) -> Readiness:
    """Tell whether the arrived set may be handed on.

    Refused conflicting instances (``conflicts``) count as arrived: they will not come again. A series that is short
    of the announced number waits until ``max_wait_s``; one that is longer than announced falls back to silence.
    """
    arrived = arrival.instances + conflicts
    if arrival.expected is not None and arrived == arrival.expected:
        return Readiness(True, f"all {arrived} announced instances are here")
    waited_s = (now - arrival.first_arrival_at).total_seconds()
    if waited_s >= settings.max_wait_s:
        return Readiness(True, f"{arrived} instances after the maximum wait of {settings.max_wait_s:g} s")
    if arrival.expected is not None and arrived < arrival.expected:
        return Readiness(
            False,
            f"{arrived} of {arrival.expected} announced instances are here: it waits for the others, at most "
            f"{settings.max_wait_s:g} s after the first",
        )
    silent_s = (now - arrival.last_arrival_at).total_seconds()
    if silent_s >= settings.quiet_s:
        return Readiness(True, f"{arrived} instances, then silence for {settings.quiet_s:g} s")
    return Readiness(
        False, f"{arrived} instances, still arriving: it is whole when nothing has come for {settings.quiet_s:g} s"
    )
