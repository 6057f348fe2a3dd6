"""When a series is taken to be whole: by evidence first, then by silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.series import SeriesArrival

_ARRIVING = timedelta(seconds=2)
_SHORTEST_S = 0.02


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


def pause_s(
    waiting: Iterable[SeriesArrival],
    now: datetime,
    settings: CompletenessSettings,
    *,
    often_s: float,
    seldom_s: float,
) -> float:
    """Return how long none of these can become complete, if it is told when the first instance of many arrives.

    Of those that come close together only the first is told (``pipeline.bell.Seldom``): what is arriving is looked at
    every ``often_s``, everything else every ``seldom_s`` at the latest.
    """
    silence, wait = timedelta(seconds=settings.quiet_s), timedelta(seconds=settings.max_wait_s)
    pause = timedelta(seconds=seldom_s)
    for arrival in waiting:
        if now - arrival.last_arrival_at < _ARRIVING:
            pause = min(pause, timedelta(seconds=often_s))
        for due in (arrival.last_arrival_at + silence, arrival.first_arrival_at + wait):
            if due > now:
                pause = min(pause, due - now)
    return max(pause.total_seconds(), _SHORTEST_S)
