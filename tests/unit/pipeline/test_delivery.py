"""Delays grow to a bound, and attempts end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery import DeliverySettings


def test_delays_double_up_to_the_maximum() -> None:
    settings = DeliverySettings(first_retry_s=15, max_retry_s=100)
    assert [settings.delay_s(n) for n in range(1, 6)] == [15, 30, 60, 100, 100]


def test_default_attempts_span_three_days() -> None:
    settings = DeliverySettings()
    attempts = settings.attempts()
    waited_h = sum(settings.delay_s(n) for n in range(1, attempts)) / 3600
    assert 71 <= waited_h <= 74


@given(st.floats(0.01, 100), st.floats(0.01, 4000), st.floats(0, 100))
def test_attempts_are_at_least_one_and_finite(first_s: float, max_s: float, hours: float) -> None:
    attempts = DeliverySettings(first_retry_s=first_s, max_retry_s=max_s, give_up_after_h=hours).attempts()
    assert 1 <= attempts <= 100_000
