"""Conformance C: an RST goes across as an RST, after what had arrived before it; a clean end never becomes one.

Unix sockets know no RST: what arrives there is an EOF, or ECONNRESET if bytes were left unread.
"""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

import pytest

from lbproxy.domain.session import EndReason, Phase
from tests.relay.peers import Peer, pattern
from tests.relay.rig import LEGS, Legs, Rig, bare
from tests.relay.scale import MIB, scaled
from tests.relay.timing import some_within

pytestmark = pytest.mark.both_loops

# Ten times the case's 100 ms.
SOON_S = 1.0
REASONS = {True: EndReason.CLIENT_RESET, False: EndReason.UPSTREAM_RESET}

either_side = pytest.mark.parametrize("by_client", [True, False], ids=["client", "upstream"])


@either_side
@pytest.mark.parametrize("legs", [LEGS["tcp"], LEGS["tcp6"]], ids=["tcp", "tcp6"])
async def test_reset_after_a_byte_goes_across(rig: Rig, legs: Legs, by_client: bool) -> None:
    """C1, C2"""

    async def attempt() -> float:
        session = rig.open(legs)
        source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
        await source.send(b"x")
        assert await sink.receive_exactly(1) == b"x"
        began = time.monotonic()
        source.reset()
        assert await sink.receive_until_reset() == b""
        took_s = time.monotonic() - began
        outcome = await rig.ended(session, REASONS[by_client])
        assert outcome.errno
        assert outcome.client is None
        assert outcome.phase is Phase.RELAY
        return took_s

    await some_within(SOON_S, attempt)


@either_side
async def test_reset_follows_what_had_arrived(rig: Rig, by_client: bool) -> None:
    """C3, C4"""
    session = rig.open()
    source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
    data = pattern(200_000)
    await source.send(data)

    def relayed() -> int:
        view = rig.view(session)
        return view.sent_bytes if by_client else view.received_bytes

    await rig.until(lambda: relayed() == len(data))
    source.reset()
    assert await sink.receive_until_reset() == data
    outcome = await rig.ended(session, REASONS[by_client])
    assert (outcome.sent_bytes if by_client else outcome.received_bytes) == len(data)


@either_side
async def test_pending_bytes_are_delivered_to_a_slow_reader_before_the_reset(
    rig: Rig, by_client: bool
) -> None:
    """C5: the reader has taken nothing, so that the relay holds bytes when the reset comes."""
    session = rig.open()
    source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
    data = pattern(16 * MIB)
    await source.fill(data)
    await rig.until(lambda: rig.relay.statistics().pending_bytes > 0)
    view = rig.view(session)
    held = (view.sent_bytes if by_client else view.received_bytes) + rig.relay.statistics().pending_bytes
    source.reset()
    got = await sink.receive_until_reset(65536)
    assert data.startswith(got)
    assert len(got) >= held
    outcome = await rig.ended(session, REASONS[by_client])
    assert (outcome.sent_bytes if by_client else outcome.received_bytes) == len(got)


@either_side
async def test_reset_waits_for_a_stalled_reader_only_so_long(rig: Rig, by_client: bool) -> None:
    """C5: no progress within a second ends the wait."""
    session = rig.open()
    source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
    await source.fill(bytes(16 * MIB))
    before = rig.loop.time()
    source.reset()
    await rig.ended(session, REASONS[by_client])
    assert 0.9 <= rig.loop.time() - before < 9
    await sink.receive_until_reset()


@either_side
async def test_reset_waits_at_most_the_half_close_limit(rig: Rig, by_client: bool) -> None:
    """C5: the whole limit, scaled to 300 ms"""

    async def attempt() -> float:
        session = rig.open(half_close_timeout_ms=300)
        source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
        await source.fill(bytes(16 * MIB))
        began = time.monotonic()
        source.reset()
        await rig.ended(session, REASONS[by_client])
        took_s = time.monotonic() - began
        assert took_s >= 0.3
        await sink.receive_until_reset()
        return took_s

    await some_within(0.9, attempt)  # a second is how long a stall may last


@either_side
async def test_reset_of_the_side_that_is_blocked_is_seen(rig: Rig, by_client: bool) -> None:
    """C5: the relay waits to write to the side that is reset."""

    async def attempt() -> float:
        session = rig.open()
        sink, source = (session.client, session.upstream) if by_client else (session.upstream, session.client)
        await source.fill(bytes(16 * MIB))
        await rig.until(lambda: rig.relay.statistics().pending_bytes > 0)
        began = time.monotonic()
        sink.reset()
        await source.receive_until_reset()
        took_s = time.monotonic() - began
        await rig.ended(session, REASONS[by_client])
        return took_s

    await some_within(SOON_S, attempt)


async def keep_sending(peer: Peer) -> NoReturn:
    while True:
        await peer.send(b"x")
        await asyncio.sleep(0)


@either_side
async def test_reset_after_a_half_close_is_no_clean_end(rig: Rig, by_client: bool) -> None:
    """C1, C2 in the phase half_closed"""

    async def attempt() -> float:
        session = rig.open()
        source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
        source.fin()
        assert await sink.receive_all() == b""
        began = time.monotonic()
        source.reset()
        # A receiver that has read a FIN already learns of the RST when it writes.
        with pytest.raises(ConnectionError):
            await keep_sending(sink)
        took_s = time.monotonic() - began
        outcome = await rig.ended(session, REASONS[by_client])
        assert outcome.phase is Phase.HALF_CLOSED
        return took_s

    await some_within(SOON_S, attempt)


@either_side
async def test_reset_by_the_side_that_had_been_sent_a_fin(rig: Rig, by_client: bool) -> None:
    """C1, C2 in the phase half_closed, from the other side"""

    async def attempt() -> float:
        session = rig.open()
        source, sink = (session.client, session.upstream) if by_client else (session.upstream, session.client)
        sink.fin()
        assert await source.receive_all() == b""
        await source.send(b"part")
        assert await sink.receive_exactly(4) == b"part"
        began = time.monotonic()
        source.reset()
        assert await sink.receive_until_reset() == b""
        took_s = time.monotonic() - began
        outcome = await rig.ended(session, REASONS[by_client])
        assert outcome.phase is Phase.HALF_CLOSED
        return took_s

    await some_within(SOON_S, attempt)


async def test_bytes_of_the_upstream_reach_a_client_whose_own_bytes_cannot_be_delivered(rig: Rig) -> None:
    """C10, rule 2: a write to an upstream that has gone fails; what it had sent is delivered first."""
    session = rig.open()
    await session.upstream.send(b"go away")
    session.upstream.close()
    await rig.until(lambda: rig.relay.read_slot(session.slot).received_bytes == 7)
    # Two writes: the first brings the RST, the second would fail with EPIPE (and its signal, SIGPIPE).
    try:
        for _ in range(20):
            await session.client.send(b"more")
            await asyncio.sleep(0.001)
    except ConnectionError:
        pass  # the RST has come back already
    await rig.ended(session, EndReason.UPSTREAM_RESET)


async def test_client_reset_while_connecting_cancels_the_dial(rig: Rig) -> None:
    """C6"""
    client, client_end = rig.client()
    listener, dialing = rig.full_listener()
    number = rig.submit(client_end, dialing)
    await client.send(b"never read")
    client.reset()
    outcome = await rig.ended(number, EndReason.CLIENT_GONE)
    assert outcome.phase is Phase.CONNECT
    assert outcome.client is None
    assert outcome.connect_s is None
    assert outcome.sent_bytes == 0
    listener.sock.close()


async def test_client_fin_while_connecting_does_not_cancel_the_dial(rig: Rig) -> None:
    """C6 and B3: a FIN alone is a half-close."""
    client, client_end = rig.client()
    _, dialing = rig.full_listener()
    client.fin()
    number = rig.submit(client_end, dialing, connect_timeout_ms=100)
    outcome = await rig.ended(number, EndReason.CONNECT_TIMEOUT)
    assert outcome.client is not None
    outcome.client.close()


async def test_resets_at_any_moment_leave_nothing_behind(rig: Rig) -> None:
    """C8, scaled from 10,000 to 200: after so many bytes this way and that way, one side resets"""
    data = pattern(300_000)
    for number in range(scaled(10_000, 200)):
        session = rig.open()
        source, sink = (session.client, session.upstream)[:: 1 if number % 2 else -1]
        session.client.sock.send(data[: number * 7919 % len(data)])
        session.upstream.sock.send(data[: number * 104_729 % len(data)])
        for _ in range(number % 5):
            await asyncio.sleep(0)
        source.reset()
        async with asyncio.TaskGroup() as group:
            group.create_task(sink.gone(), name="reading")
            outcome = await rig.outcome(session)
            # Before the relay has seen it connected, a reset cancels the dial or is a failed one.
            if outcome.phase is Phase.CONNECT:
                assert outcome.reason in {EndReason.CLIENT_GONE, EndReason.CONNECT_REFUSED}
                if outcome.client is not None:
                    outcome.client.close()
            else:
                assert outcome.reason in set(REASONS.values())


async def test_reset_on_a_unix_leg_is_an_eof(rig: Rig) -> None:
    """C1, C2 where they cannot hold: a unix socket is told of an RST by an EOF."""

    async def attempt() -> float:
        session = rig.open(LEGS["tcp-unix"])
        await session.client.send(b"x")
        await rig.until(lambda: rig.view(session).sent_bytes == 1)
        session.client.reset()
        outcome = await rig.ended(session, EndReason.CLIENT_RESET)
        assert await session.upstream.receive_all() == b"x"
        return outcome.total_s

    # What was sent lies in the peer's queue: there is no acknowledgement to wait a second for.
    await some_within(0.9, attempt)


async def test_unix_upstream_that_leaves_bytes_unread_resets_the_client(rig: Rig) -> None:
    """C2: ECONNRESET is as near to an RST as a unix socket comes."""
    session = rig.open(LEGS["tcp-unix"])
    await session.client.send(b"xyz")
    assert await session.upstream.receive_exactly(1) == b"x"
    session.upstream.close()
    assert await session.client.receive_until_reset() == b""
    await rig.ended(session, EndReason.UPSTREAM_RESET)


async def test_reset_behind_a_greeting_is_no_failed_connect(rig: Rig) -> None:
    """C2: everything has happened before the relay looks for the first time."""
    client, client_end = rig.client()
    listener = rig.listener()
    upstream_end = listener.dial()
    upstream = listener.accept()
    await upstream.send(b"too many")
    upstream.reset()
    number = rig.submit(client_end, bare(upstream_end))
    assert await client.receive_until_reset() == b"too many"
    await rig.ended(number, EndReason.UPSTREAM_RESET)
