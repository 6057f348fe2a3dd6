"""How far a series is that has no job yet, or more to come: what ``voxgate jobs list`` says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain.ports import JobLog, SeriesIndex
from domain.series import SeriesArrival
from pipeline.completeness import CompletenessSettings, readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a series besides its jobs."""

    state: str
    """``arriving``, ``complete`` (it is planned next), ``planned`` (its jobs say the rest) or ``unknown``."""
    sentence: str
    """Empty where the jobs say all."""
    study_instance_uid: str = field(default="", repr=False)
    instances: int = 0
    expected: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Instances are here that no job tells of yet."""
        return self.state in ("arriving", "complete")


def standing_of(
    index: SeriesIndex, series_instance_uid: str, *, has_jobs: bool, now: datetime, settings: CompletenessSettings
) -> Standing:
    """Return how far a series is."""
    arrival = next((item for item in index.arrivals() if item.series_instance_uid == series_instance_uid), None)
    if arrival is None:
        if has_jobs or index.instances(series_instance_uid):
            return Standing(state="planned", sentence="")
        return Standing(state="unknown", sentence="no instance of this series was received")
    return _arriving(index, arrival, now, settings)


def without_jobs(
    index: SeriesIndex, jobs: JobLog, *, study: str | None, now: datetime, settings: CompletenessSettings
) -> list[Standing]:
    """Return how far each series (``study``: of one study) is of which no job tells yet."""
    return [
        _arriving(index, arrival, now, settings)
        for arrival in index.arrivals()
        if study in (None, arrival.study_instance_uid)
        and not jobs.find(series_instance_uid=arrival.series_instance_uid, limit=1)
    ]


def _arriving(index: SeriesIndex, arrival: SeriesArrival, now: datetime, settings: CompletenessSettings) -> Standing:
    found = readiness(arrival, now, settings, conflicts=index.conflicts(arrival.series_instance_uid))
    return Standing(
        state="complete" if found.ready else "arriving",
        sentence=f"{found.reason}; it is planned next" if found.ready else found.reason,
        study_instance_uid=arrival.study_instance_uid,
        instances=arrival.instances,
        expected=arrival.expected,
    )
