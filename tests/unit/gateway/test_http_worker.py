from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gunicorn.http.body import LengthReader
from gunicorn.http.unreader import SocketUnreader

from gateway.http_worker import CROWDED_S, BodyMeter, Connections, PromptBody

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


class Packets:
    """A socket on which bytes come in packets; an empty one is the end, and then the connection breaks."""

    def __init__(self, *packets: bytes) -> None:
        self._packets = list(packets)

    def recv(self, size: int) -> bytes:
        if not self._packets:
            raise ConnectionResetError
        packet = self._packets.pop(0)
        if len(packet) > size:
            self._packets.insert(0, packet[size:])
        return packet[:size]


def body_of(peer: Packets, length: int, held: bytes = b"") -> PromptBody:
    """Return a body of which ``held`` came with the head of its request."""
    unreader = SocketUnreader(peer)  # type: ignore[no-untyped-call]
    unreader.unread(held)  # type: ignore[no-untyped-call]
    return PromptBody(LengthReader(unreader, length))  # type: ignore[no-untyped-call]


def pieces(body: PromptBody) -> Iterator[bytes]:
    while piece := body.read1(1 << 19):
        yield piece


def test_a_body_ends_where_its_length_says_and_leaves_the_next_request_alone() -> None:
    peer = Packets(b"cdefGET /")
    body = body_of(peer, 6, held=b"ab")
    assert list(pieces(body)) == [b"ab", b"cdef"]
    assert peer.recv(100) == b"GET /"


def test_what_came_with_the_head_may_hold_the_next_request() -> None:
    body = body_of(Packets(), 2, held=b"abGET /")
    assert list(pieces(body)) == [b"ab"]
    assert body.reader.unreader.take_buffered() == b"GET /"


def test_small_packets_are_gathered_and_large_ones_come_as_they_are() -> None:
    body = body_of(Packets(*[b"x" * 1000] * 100, b"y" * 300_000), 400_000)
    sizes = [len(piece) for piece in pieces(body)]
    assert sum(sizes) == 400_000
    assert sizes[0] == 66_000
    assert len(sizes) == 2


def test_a_body_that_ends_early_is_short() -> None:
    assert b"".join(pieces(body_of(Packets(b"abc", b"", b""), 10))) == b"abc"


def test_behind_a_body_that_broke_off_no_request_is_looked_for() -> None:
    body = body_of(Packets(), 10)
    with pytest.raises(ConnectionResetError):
        body.read1(10)
    assert body.failed


def test_a_connection_is_left_to_whoever_has_fewer() -> None:
    shared = Connections()
    shared.note(1, 3)
    assert not shared.someone_has_fewer_than(3)
    shared.note(2, 2)
    assert shared.someone_has_fewer_than(3)
    shared.note(2, None)
    assert not shared.someone_has_fewer_than(3), "it is gone"
    shared.note(3, 1000)
    assert not shared.someone_has_fewer_than(3)
