"""A series is whole by evidence first, then by silence, at the latest after the maximum wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.series import SeriesArrival
from pipeline.completeness import CompletenessSettings, pause_s, readiness

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SETTINGS = CompletenessSettings(quiet_s=10, max_wait_s=600)


def arrival(
    *, instances: int = 5, expected: int | None = None, first_s: float = 60, last_s: float = 1
) -> SeriesArrival:
    return SeriesArrival(
        series_instance_uid="1.2",
        study_instance_uid="1.1",
        instances=instances,
        expected=expected,
        first_arrival_at=NOW - timedelta(seconds=first_s),
        last_arrival_at=NOW - timedelta(seconds=last_s),
        revision=instances,
        frozen_revision=0,
    )


def test_waits_while_instances_arrive() -> None:
    assert not readiness(arrival(last_s=9.9), NOW, SETTINGS).ready


def test_is_ready_after_the_quiet_period() -> None:
    assert readiness(arrival(last_s=10), NOW, SETTINGS).ready


def test_is_ready_at_once_when_all_announced_instances_are_here() -> None:
    assert readiness(arrival(instances=5, expected=5, last_s=0), NOW, SETTINGS).ready


def test_conflicting_instances_count_as_arrived() -> None:
    assert readiness(arrival(instances=4, expected=5, last_s=0), NOW, SETTINGS, conflicts=1).ready


def test_waits_beyond_the_quiet_period_for_announced_instances() -> None:
    verdict = readiness(arrival(instances=4, expected=5, last_s=60), NOW, SETTINGS)
    assert not verdict.ready
    assert "4 of 5" in verdict.reason


def test_takes_what_is_there_after_the_maximum_wait() -> None:
    assert readiness(arrival(instances=4, expected=5, first_s=600, last_s=0), NOW, SETTINGS).ready
    assert readiness(arrival(first_s=600, last_s=0), NOW, SETTINGS).ready


def test_more_than_announced_falls_back_to_silence() -> None:
    assert not readiness(arrival(instances=6, expected=5, last_s=1), NOW, SETTINGS).ready
    assert readiness(arrival(instances=6, expected=5, last_s=11), NOW, SETTINGS).ready


@given(
    instances=st.integers(1, 1000),
    expected=st.none() | st.integers(1, 1000),
    first_s=st.floats(600, 1e6),
    last_s=st.floats(0, 600),
)
def test_no_series_waits_for_ever(instances: int, expected: int | None, first_s: float, last_s: float) -> None:
    asked = arrival(instances=instances, expected=expected, first_s=first_s, last_s=last_s)
    assert readiness(asked, NOW, SETTINGS).ready


@given(
    instances=st.integers(1, 9),
    expected=st.none() | st.integers(1, 9),
    first_s=st.floats(0, 700),
    last_s=st.floats(0, 700),
)
def test_no_series_becomes_ready_while_nobody_looks(
    instances: int, expected: int | None, first_s: float, last_s: float
) -> None:
    asked = arrival(instances=instances, expected=expected, first_s=max(first_s, last_s), last_s=last_s)
    pause = pause_s([asked], NOW, SETTINGS, often_s=0.25, seldom_s=1e6)
    before = NOW + timedelta(seconds=pause - 0.03)
    assert readiness(asked, max(NOW, before), SETTINGS).ready == readiness(asked, NOW, SETTINGS).ready


def test_looks_seldom_while_nothing_arrives_and_often_while_something_does() -> None:
    def pause(*waiting: SeriesArrival) -> float:
        return pause_s(waiting, NOW, SETTINGS, often_s=0.25, seldom_s=2.0)

    short = arrival(instances=4, expected=5, last_s=100, first_s=100)
    assert pause() == 2.0
    assert pause(short) == 2.0
    assert pause(short, arrival(last_s=1)) == 0.25
    assert pause(short, arrival(last_s=9.5)) == 0.5
