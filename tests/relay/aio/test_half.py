"""One direction by itself: when it reads, what it keeps, and when it says that a byte has moved."""

from __future__ import annotations

import _socket
from collections.abc import Iterator

import pytest

from lbproxy.relay.aio.half import BUFFER_BYTES, TURN_BYTES, Half, Stop

Pair = tuple[_socket.socket, _socket.socket]


def pair() -> Pair:
    ours, theirs = _socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    return ours, theirs


@pytest.fixture
def source() -> Iterator[Pair]:
    """What the half reads from, and its peer."""
    pairs = pair()
    yield pairs
    for sock in pairs:
        sock.close()


@pytest.fixture
def buffer() -> bytearray:
    return bytearray(BUFFER_BYTES)


def half_between(source: Pair, sink: Pair, counters: list[int]) -> Half:
    half = Half(source[0], sink[0], counters, 0, thorough=True)
    half.readable = True
    return half


def fill(sock: _socket.socket) -> int:
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(BUFFER_BYTES))
    except BlockingIOError:
        return sent


@pytest.fixture
def blocked(source: Pair, buffer: bytearray) -> Iterator[tuple[Half, Pair]]:
    """A half that keeps bytes since 1.0, because its sink is full, and the sink."""
    sink = pair()
    fill(sink[0])
    source[1].send(b"kept")
    half = half_between(source, sink, [0])
    assert half.move(buffer, memoryview(buffer), 1.0) is Stop.BLOCKED
    yield half, sink
    for sock in sink:
        sock.close()


def test_blocked_half_keeps_what_did_not_fit_and_reads_no_more(
    source: Pair, buffer: bytearray, blocked: tuple[Half, Pair]
) -> None:
    half, _ = blocked
    source[1].send(b"later")
    assert half.move(buffer, memoryview(buffer), 2.0) is Stop.BLOCKED
    assert (half.pending_bytes(), half.count, half.moved_at) == (4, 0, 1.0)
    assert source[0].recv(100) == b"later"


def test_writing_what_was_kept_counts_as_a_move(buffer: bytearray, blocked: tuple[Half, Pair]) -> None:
    half, sink = blocked
    while True:
        try:
            sink[1].recv(1 << 20)
        except BlockingIOError:
            break
    assert half.move(buffer, memoryview(buffer), 3.0) is Stop.EMPTY
    assert (half.pending_bytes(), half.count, half.counters, half.moved_at) == (0, 4, [4], 3.0)
    assert half.first_at == 1.0
    assert sink[1].recv(100) == b"kept"


def test_half_stops_at_its_budget(buffer: bytearray) -> None:
    class Endless(_socket.socket):
        def recv_into(self, into: object, nbytes: int = 0, flags: int = 0) -> int:
            return BUFFER_BYTES

        def send(self, data: memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
            return len(data)

    endless = Endless()
    half = half_between((endless, endless), (endless, endless), [0])
    assert half.move(buffer, memoryview(buffer), 1.0) is Stop.BUDGET
    assert half.count == TURN_BYTES
    endless.close()


def test_eof_comes_after_every_byte(source: Pair, buffer: bytearray) -> None:
    sink = pair()
    half = half_between(source, sink, [0])
    source[1].send(b"last")
    source[1].close()
    assert half.move(buffer, memoryview(buffer), 1.0) is Stop.EOF
    assert sink[1].recv(100) == b"last"
    for sock in sink:
        sock.close()
