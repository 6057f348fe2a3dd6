from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from gateway.http_worker import CROWDED_S, BodyMeter

RATE = 100.0
WINDOW_S = 30.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class DrippingPeer:
    """A socket that lets its reader wait ``pause`` seconds for ``size`` bytes, and is looked at meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pause = 1.0
        self.size = 1
        self.meter: BodyMeter | None = None
        self.verdicts: list[bool] = []
        self.crowded = False
        self.closed: int | None = None

    def recv(self, size: int) -> bytes:
        self.clock.now += self.pause
        assert self.meter is not None
        self.verdicts.append(self.meter.is_too_slow(crowded=self.crowded))
        return b"x" * self.size

    def shutdown(self, how: int) -> None:
        self.closed = how


@pytest.fixture
def peer() -> DrippingPeer:
    clock = Clock()
    dripping = DrippingPeer(clock)
    dripping.meter = BodyMeter(dripping, min_bytes_s=RATE, window_s=WINDOW_S, clock=clock)  # type: ignore[arg-type]
    return dripping


def read(peer: DrippingPeer, times: int) -> list[bool]:
    """Return what was thought of the peer during each of these reads."""
    assert peer.meter is not None
    for _ in range(times):
        peer.meter.recv(1 << 19)
    verdicts, peer.verdicts = peer.verdicts, []
    return verdicts


def test_a_drip_is_too_slow_when_the_window_is_over(peer: DrippingPeer) -> None:
    verdicts = read(peer, int(WINDOW_S))
    assert verdicts.index(True) == WINDOW_S - 1


def test_while_others_wait_a_drip_is_too_slow_after_two_seconds(peer: DrippingPeer) -> None:
    peer.crowded = True
    assert read(peer, 3).index(True) == CROWDED_S - 1


def test_a_body_that_comes_at_the_least_rate_is_never_too_slow(peer: DrippingPeer) -> None:
    peer.size = int(RATE) + 10
    assert not any(read(peer, 200))


def test_a_fast_body_that_begins_to_drip_is_too_slow_within_two_windows(peer: DrippingPeer) -> None:
    peer.size = 1_000_000
    assert not any(read(peer, int(WINDOW_S)))
    peer.size = 1
    assert read(peer, 2 * int(WINDOW_S)).index(True) < 2 * WINDOW_S


def test_a_fast_body_may_pause_while_others_wait(peer: DrippingPeer) -> None:
    peer.crowded, peer.size = True, 1_000_000
    read(peer, 3)
    peer.size = 1
    assert not any(read(peer, 10))


def test_time_that_the_store_takes_does_not_count(peer: DrippingPeer) -> None:
    peer.crowded, peer.pause = True, 0.01
    for _ in range(20):
        assert read(peer, 1) == [False]
        peer.clock.now += 60  # writing
        assert peer.meter is not None
        assert not peer.meter.is_too_slow(crowded=True)


def test_no_body_is_too_slow_without_a_least_rate() -> None:
    clock = Clock()
    peer = DrippingPeer(clock)
    peer.meter = BodyMeter(peer, min_bytes_s=0.0, window_s=WINDOW_S, clock=clock)  # type: ignore[arg-type]
    peer.crowded, peer.size = True, 0
    assert not any(read(peer, 100))


def test_a_peer_that_is_given_up_is_no_longer_read_but_can_be_answered(peer: DrippingPeer) -> None:
    assert peer.meter is not None
    peer.meter.give_up()
    assert peer.closed == socket.SHUT_RD
    with pytest.raises(TimeoutError):
        peer.meter.recv(10)
