"""The relay's limits on virtual time: the clock is the test's, and a turn comes when the test says so."""

from __future__ import annotations

import _socket
import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from lbproxy.domain.session import EndReason
from lbproxy.relay.aio.deadlines import HORIZON_S
from lbproxy.relay.aio.relay import TURN_DEADLINES, AsyncioRelay
from lbproxy.relay.contract import Event, RelayOptions

Pair = tuple[_socket.socket, _socket.socket]


@dataclass
class Stage:
    """A relay whose clock reads `now`, and the far ends of its sessions."""

    now: float = 0.0
    peers: list[Pair] = field(default_factory=list)

    def start(self) -> None:
        self.relay = AsyncioRelay(asyncio.get_running_loop(), self.ignore, clock=lambda: self.now)
        self.relay.open_slot()

    def ignore(self, events: Sequence[Event]) -> None:
        pass

    def open(
        self, connect_ms: int = 0, idle_ms: int = 0, half_close_ms: int = 0, longest_ms: int = 0
    ) -> None:
        """A session that is connected by the end of this turn."""
        client, client_end = _socket.socketpair()
        upstream, upstream_end = _socket.socketpair()
        for sock in (client_end, upstream_end):
            sock.setblocking(False)
        self.peers.append((client, upstream))
        options = RelayOptions(connect_ms, idle_ms, half_close_ms, longest_ms, slot=0)
        self.relay.submit(len(self.peers), client_end, upstream_end, options)
        self.relay._turn()

    def at(self, now: float) -> None:
        self.now = now
        self.relay._judge()

    @property
    def ended(self) -> int:
        return self.relay.statistics().ended


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    stage.start()
    yield stage
    stage.relay.close()
    for client, upstream in stage.peers:
        client.close()
        upstream.close()


async def test_session_ends_at_its_limit_and_not_before(stage: Stage) -> None:
    stage.open(idle_ms=3600_000)
    stage.at(3599.9)
    assert stage.ended == 0
    stage.at(3600.1)
    assert stage.ended == 1


async def test_moving_bytes_put_the_limit_off(stage: Stage) -> None:
    stage.open(idle_ms=1000)
    for step in range(1, 100):
        stage.peers[0][step % 2].send(b".")
        stage.at(step * 0.9)
    assert stage.ended == 0
    stage.at(99 * 0.9 + 1.1)
    assert stage.ended == 1


async def test_session_keeps_one_entry_however_often_its_limit_moves(stage: Stage) -> None:
    stage.open(connect_ms=5000, idle_ms=200, longest_ms=60_000, half_close_ms=3000)
    for step in range(1, 200):
        stage.peers[0][0].send(b".")
        stage.at(step * 0.1)
    assert stage.ended == 0
    assert len(stage.relay._deadlines) == 1


async def test_entries_of_ended_sessions_go_within_the_horizon(stage: Stage) -> None:
    for _ in range(50):
        stage.open(idle_ms=3600_000)
    for session in range(1, 51):
        assert stage.relay.abort(session, EndReason.KILLED, reset=True)
    stage.at(HORIZON_S + 1)
    assert len(stage.relay._deadlines) == 0


async def test_ends_of_many_sessions_are_spread_over_turns(stage: Stage) -> None:
    """F9: capped"""
    for _ in range(TURN_DEADLINES + 10):
        stage.open(longest_ms=1000)
    stage.at(2.0)
    assert stage.ended == TURN_DEADLINES
    stage.at(2.0)
    assert stage.ended == TURN_DEADLINES + 10


async def test_fault_at_one_session_s_time_ends_that_one_alone(stage: Stage) -> None:
    """Those due with it are looked at all the same: nobody would look at them again."""
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    for _ in range(3):
        stage.open(idle_ms=1000)
    first = stage.relay._flows[1]
    first.options = None  # type: ignore[assignment]
    stage.at(1.1)
    assert stage.ended == 3
    assert [fault["message"] for fault in faults] == ["relay: session 1 fell over"]
