"""What the relay's contract says beside the moving of bytes: ownership, events, counters, aborts, the end."""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import socket
from collections.abc import Sequence

import pytest

from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.contract import Connected, Event, Outcome, SlotCounters
from tests.relay.peers import pause
from tests.relay.rig import LEGS, TCP, Legs, Rig, Session, bare
from tests.relay.scale import KIB, scaled

pytestmark = pytest.mark.both_loops

every_leg = pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])


async def test_events_never_come_from_within_a_call(rig: Rig) -> None:
    session = rig.open()
    assert rig.events == []
    await rig.connected(session)
    seen = len(rig.events)
    assert rig.relay.abort(session.number, EndReason.KILLED, reset=True)
    assert len(rig.events) == seen
    await rig.ended(session, EndReason.KILLED)


async def test_connected_and_outcome_may_share_a_batch(rig: Rig) -> None:
    client, client_end = rig.client()
    listener = rig.listener()
    upstream_end = listener.dial()
    listener.accept().close()
    client.fin()
    number = rig.submit(client_end, bare(upstream_end))
    await rig.ended(number, EndReason.CLIENT_EOF)
    connected = await rig.connected(number)
    assert connected.connect_s >= 0
    assert [type(event) for event in rig.events] in ([Connected, Outcome], [Outcome])


async def test_submit_that_raises_leaves_both_sockets(rig: Rig) -> None:
    client, client_end = rig.client()
    closed = _socket.socket()
    closed.close()
    with pytest.raises(OSError, match=r"closed|descriptor"):
        rig.submit(client_end, closed)
    await client.send(b"still here")
    assert client_end.recv(100) == b"still here"
    assert rig.relay.statistics().submitted == 0
    listener = rig.listener()
    number = rig.submit(client_end, bare(listener.dial()))
    rig.keep(listener.accept())
    client.close()
    await rig.connected(number)


async def test_dial_is_tried_again_from_within_the_callback(rig: Rig) -> None:
    """Where the Outcome of a failed one is seen, as the proxy does it"""
    client, client_end = rig.client()
    listener = rig.listener()
    again: list[int] = []

    def try_again(events: Sequence[Event]) -> None:
        again.extend(
            rig.submit(event.client, bare(listener.dial()))
            for event in events
            if type(event) is Outcome and event.client is not None
        )

    rig.on_batch = try_again
    rig.submit(client_end, rig.full_listener()[1], connect_timeout_ms=50)
    await rig.until(lambda: bool(again))
    upstream = rig.keep(listener.accept())
    await client.send(b"hello")
    assert await upstream.receive_exactly(5) == b"hello"


async def test_bytes_are_counted_live(rig: Rig) -> None:
    session = rig.open()
    await session.client.send(b"12345")
    assert await session.upstream.receive_exactly(5)
    await session.upstream.send(b"123")
    assert await session.client.receive_exactly(3)
    # A thread may still be on its way from the kernel's answer to the counter.
    await rig.until(lambda: rig.relay.read_slot(session.slot) == SlotCounters(5, 3))
    view = rig.view(session)
    assert (view.sent_bytes, view.received_bytes) == (5, 3)
    assert 0 <= view.idle_s <= view.age_s


async def test_slots_are_counted_apart_and_reused_from_zero(rig: Rig) -> None:
    slots = [rig.relay.open_slot() for _ in range(3)]
    assert len({rig.slot, *slots}) == 4
    for size, slot in enumerate(slots, 1):
        session = rig.open(slot=slot)
        await session.client.send(b"x" * size)
        assert await session.upstream.receive_exactly(size)
        await session.upstream.send(b"x")
        assert await session.client.receive_exactly(1)
    await rig.until(lambda: [rig.relay.read_slot(slot).sent_bytes for slot in slots] == [1, 2, 3])
    for view in rig.relay.sessions():
        rig.relay.abort(view.session, EndReason.KILLED, reset=True)
    rig.relay.close_slot(slots[1])
    again = rig.relay.open_slot()
    assert rig.relay.read_slot(again) == SlotCounters(0, 0)


@every_leg
async def test_graceful_abort_of_a_quiet_session_is_a_fin(rig: Rig, legs: Legs) -> None:
    """C9, as far as it is the relay's"""
    session = rig.open(legs)
    await session.client.send(b"quiet")
    assert await session.upstream.receive_exactly(5)
    assert rig.relay.abort(session.number, EndReason.DRAINED, reset=False)
    assert await session.client.receive_all() == b""
    assert await session.upstream.receive_all() == b""
    outcome = await rig.ended(session, EndReason.DRAINED)
    assert (outcome.phase, outcome.client) == (Phase.RELAY, None)


async def fill_the_relay(rig: Rig, session: Session) -> None:
    """Send until the relay keeps bytes, and no more: it has read all that was sent. A thread may be seen with bytes that it
    writes the next moment, so they count only if they are still there after a pause."""
    sent = kept = 0
    while not kept:
        sent += session.client.sock.send(bytes(32 * KIB))
        await rig.until(
            lambda: rig.view(session).sent_bytes + rig.relay.statistics().pending_bytes == sent  # noqa: B023
        )
        kept = rig.relay.statistics().pending_bytes
        for _ in range(10):
            if kept:
                await pause(0.02)
                kept = rig.relay.statistics().pending_bytes


@pytest.mark.parametrize("kept", [False, True], ids=["unread", "kept"])
async def test_graceful_abort_with_undelivered_bytes_is_a_reset(rig: Rig, kept: bool) -> None:
    session = rig.open()
    await rig.connected(session)
    if kept:
        await fill_the_relay(rig, session)
    else:
        session.client.sock.send(b"arrived, not yet read")
    assert rig.relay.abort(session.number, EndReason.DRAINED, reset=False)
    if kept:
        await rig.outcome(session)  # read before, and a relay with threads may still deliver them
        await session.upstream.receive_until_reset()
    else:  # a relay with threads may have delivered them meanwhile: then the stream is whole
        with contextlib.suppress(ConnectionResetError):
            assert await session.upstream.receive_all() == b"arrived, not yet read"
    await rig.ended(session, EndReason.DRAINED)


async def test_abort_with_a_reset_resets_both_sides(rig: Rig) -> None:
    """C9, as far as it is the relay's"""
    session = rig.open()
    await rig.connected(session)
    assert rig.relay.abort(session.number, EndReason.ENDPOINT_DOWN, reset=True)
    assert await session.client.receive_until_reset() == b""
    assert await session.upstream.receive_until_reset() == b""
    await rig.ended(session, EndReason.ENDPOINT_DOWN)


async def test_abort_while_connecting_closes_the_client(rig: Rig) -> None:
    client, client_end = rig.client()
    _, dialing = rig.full_listener()
    number = rig.submit(client_end, dialing)
    assert rig.relay.abort(number, EndReason.DRAINED, reset=False)
    outcome = await rig.ended(number, EndReason.DRAINED)
    assert (outcome.client, outcome.phase) == (None, Phase.CONNECT)
    assert await client.receive_all() == b""


async def test_abort_of_a_session_that_is_not_here_is_false(rig: Rig) -> None:
    assert not rig.relay.abort(12345, EndReason.KILLED, reset=True)
    session = rig.open()
    assert rig.relay.abort(session.number, EndReason.KILLED, reset=True)
    assert not rig.relay.abort(session.number, EndReason.KILLED, reset=True)


async def test_abort_of_a_session_that_is_being_reset(rig: Rig) -> None:
    """What the relay keeps cannot be delivered, so the reset is still on its way. (A stalled sender alone says little: where the
    relay's thread has no processor, the kernel's buffers may yet take all of it.)"""
    session = rig.open()
    await rig.connected(session)
    await fill_the_relay(rig, session)
    session.client.reset()
    assert rig.relay.abort(session.number, EndReason.DRAINED, reset=False)
    await session.upstream.receive_until_reset()
    await rig.ended(session, EndReason.DRAINED)


async def test_close_resets_what_is_left_and_tells_before_it_returns(rig: Rig) -> None:
    """C9, as far as it is the relay's"""
    session = rig.open()
    client, client_end = rig.client()
    connecting = rig.submit(client_end, rig.full_listener()[1])
    await rig.connected(session)
    rig.relay.close()
    for number in (session.number, connecting):
        (outcome,) = rig.outcomes(number)
        assert (outcome.reason, outcome.client) == (EndReason.KILLED, None)
    assert await session.client.receive_until_reset() == b""
    assert await session.upstream.receive_until_reset() == b""
    assert await client.receive_until_reset() == b""
    rig.relay.close()
    assert not rig.relay.abort(session.number, EndReason.KILLED, reset=True)


async def test_submit_after_close_raises(rig: Rig) -> None:
    _, client_end = rig.client()
    rig.relay.close()
    upstream_end = bare(rig.listener().dial())
    with pytest.raises(OSError, match="closed"):
        rig.submit(client_end, upstream_end)
    client_end.close()
    upstream_end.close()


async def test_callback_that_raises_is_reported_and_harms_no_session(rig: Rig) -> None:
    reported: list[object] = []
    rig.loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    healthy = rig.open()
    await rig.connected(healthy)

    def fail(_: object) -> None:
        raise RuntimeError("the callback's own trouble")

    original, rig.on_batch = rig.on_batch, fail
    session = rig.open()
    session.client.close()
    session.upstream.close()
    await rig.until(lambda: bool(rig.outcomes(session.number)))
    rig.on_batch = original
    assert reported
    assert all(isinstance(error, RuntimeError) for error in reported)
    await healthy.client.send(b"still here")
    assert await healthy.upstream.receive_exactly(10) == b"still here"


async def test_socket_numbers_are_reused_without_a_mix_up(rig: Rig) -> None:
    """Sessions end and begin within one turn of the loop, on the same descriptors."""
    for number in range(50):
        session = rig.open()
        await session.client.send(bytes([number]))
        assert await session.upstream.receive_exactly(1) == bytes([number])
        rig.relay.abort(session.number, EndReason.KILLED, reset=bool(number % 2))
        again = rig.open()
        await again.client.send(b"new")
        assert await again.upstream.receive_exactly(3) == b"new"
        again.client.close()
        again.upstream.close()
        await asyncio.sleep(0)


async def test_sessions_are_listed_while_they_live(rig: Rig) -> None:
    assert rig.relay.sessions() == []
    session = rig.open()
    assert rig.view(session).phase in {Phase.CONNECT, Phase.RELAY}  # a thread may be quick
    await rig.connected(session)
    assert rig.view(session).phase is Phase.RELAY
    session.client.sock.shutdown(socket.SHUT_WR)
    assert await session.upstream.receive_all() == b""
    await rig.until(lambda: rig.view(session).phase is Phase.HALF_CLOSED)
    session.upstream.close()
    await rig.outcome(session)
    assert rig.relay.sessions() == []


@pytest.mark.parametrize("legs", LEGS.values(), ids=LEGS)
async def test_view_tells_what_the_kernel_knows_about_both_legs(rig: Rig, legs: Legs) -> None:
    session = rig.open(legs)
    await rig.connected(session)
    await session.client.send(b"x")
    assert await session.upstream.receive_exactly(1) == b"x"
    await rig.until(lambda: rig.view(session).sent_bytes == 1)  # counted a moment after it was received
    view = rig.relay.look(session.number)
    assert view is not None
    assert (view.session, view.phase, view.sent_bytes) == (session.number, Phase.RELAY, 1)
    for kind, leg in zip(legs, (view.client_tcp, view.upstream_tcp), strict=True):
        if kind == "unix":
            assert leg is None
        else:
            assert leg is not None
            assert leg.retransmits == 0
            assert leg.rtt_s is None or 0 < leg.rtt_s < 1
    upstream = view.upstream_tcp
    assert upstream is None or upstream.rtt_s is not None
    assert rig.relay.look(session.number + 1) is None


async def test_dial_without_an_answer_has_no_round_trip_time(rig: Rig) -> None:
    _, client_end = rig.client()
    number = rig.submit(client_end, rig.full_listener()[1], connect_timeout_ms=0)
    view = rig.relay.look(number)
    assert view is not None
    assert view.upstream_tcp is not None
    assert view.upstream_tcp.rtt_s is None
    rig.relay.abort(number, EndReason.KILLED, reset=True)
    await rig.ended(number, EndReason.KILLED)


async def test_legs_are_looked_at_while_sessions_end(rig: Rig) -> None:
    """And their descriptors are taken by the next ones: whatever is told is told of this session's own"""
    for _ in range(scaled(3000, 150)):
        session = rig.open(LEGS["tcp-unix"])
        session.client.close()
        session.upstream.close()
        while (view := rig.relay.look(session.number)) is not None:
            assert view.upstream_tcp is None
            if rig.outcomes(session.number):
                break
            await asyncio.sleep(0)
        await rig.outcome(session)
