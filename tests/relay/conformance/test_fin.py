"""Conformance B: the end of a stream goes across as a FIN, once, after every byte before it; the other half lives on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from lbproxy.domain.session import EndReason, Phase
from tests.relay.peers import pattern, pause
from tests.relay.rig import LEGS, TCP, Legs, Rig, bare
from tests.relay.scale import KIB, MIB, scaled

pytestmark = pytest.mark.both_loops

every_leg = pytest.mark.parametrize("legs", LEGS.values(), ids=LEGS)


@every_leg
async def test_client_half_closes_and_gets_its_answer(rig: Rig, legs: Legs) -> None:
    """B1"""
    session = rig.open(legs)
    await session.client.send(b"req")
    session.client.fin()
    assert await session.upstream.receive_all() == b"req"
    await session.upstream.send(b"thirteen byte")
    session.upstream.close()
    assert await session.client.receive_all() == b"thirteen byte"
    outcome = await rig.ended(session, EndReason.CLIENT_EOF)
    assert (outcome.sent_bytes, outcome.received_bytes, outcome.errno) == (3, 13, 0)
    assert outcome.phase is Phase.HALF_CLOSED


@every_leg
async def test_upstream_half_closes_and_gets_the_upload(rig: Rig, legs: Legs) -> None:
    """B2"""
    session = rig.open(legs)
    await session.upstream.send(b"hello")
    session.upstream.fin()
    assert await session.client.receive_all() == b"hello"
    await session.client.send(b"eleven byte")
    session.client.close()
    assert await session.upstream.receive_all() == b"eleven byte"
    outcome = await rig.ended(session, EndReason.UPSTREAM_EOF)
    assert (outcome.sent_bytes, outcome.received_bytes) == (11, 5)


@every_leg
async def test_data_and_fin_before_the_session_is_submitted(rig: Rig, legs: Legs) -> None:
    """B3"""
    client, client_end = rig.client(legs[0])
    await client.send(b"data")
    client.fin()
    listener = rig.listener(legs[1])
    number = rig.submit(client_end, bare(listener.dial()))
    await rig.connected(number)
    upstream = rig.keep(listener.accept())
    assert await upstream.receive_all() == b"data"
    await upstream.send(b"ok")
    upstream.close()
    assert await client.receive_all() == b"ok"
    await rig.ended(number, EndReason.CLIENT_EOF)


@pytest.mark.parametrize("legs", [LEGS["unix-tcp"], LEGS["unix"]], ids=["unix-tcp", "unix"])
async def test_unix_client_that_writes_and_closes_is_heard_out(rig: Rig, legs: Legs) -> None:
    """A hang-up while the upstream is still being dialled is an end of the stream there, no loss."""
    client, client_end = rig.client(legs[0])
    await client.send(b"fourteen bytes")
    client.close()
    listener = rig.listener(legs[1])
    number = rig.submit(client_end, bare(listener.dial()))
    upstream = rig.keep(listener.accept())
    assert await upstream.receive_all() == b"fourteen bytes"
    upstream.close()
    outcome = await rig.ended(number, EndReason.CLIENT_EOF)
    assert outcome.sent_bytes == 14


@pytest.mark.parametrize("from_client", [False, True], ids=["B4", "B5"])
@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_fin_is_forwarded_only_after_buffered_bytes(rig: Rig, legs: Legs, from_client: bool) -> None:
    """B4, B5: scaled from 50 MiB to 10 MiB, which is more than all buffers on the way hold."""
    session = rig.open(legs)
    source, sink = (session.client, session.upstream) if from_client else (session.upstream, session.client)
    data = pattern(scaled(50 * MIB, 10 * MIB))
    await rig.connected(session)
    taken = await source.fill(data)
    assert rig.view(session).phase is Phase.RELAY
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(sink.receive_all(), name="reading")
        await source.send(data[taken:])
        source.fin()
    assert reading.result() == data
    sink.close()
    await rig.ended(session, EndReason.CLIENT_EOF if from_client else EndReason.UPSTREAM_EOF)
    await rig.until(lambda: rig.relay.statistics().pending_bytes == 0)


@every_leg
async def test_both_sides_end_at_the_same_time(rig: Rig, legs: Legs) -> None:
    """B6"""
    session = rig.open(legs)
    await rig.connected(session)
    session.client.fin()
    session.upstream.fin()
    assert await session.client.receive_all() == b""
    assert await session.upstream.receive_all() == b""
    outcome = await rig.outcome(session)
    assert outcome.reason in {EndReason.CLIENT_EOF, EndReason.UPSTREAM_EOF}
    assert outcome.errno == 0


@every_leg
async def test_half_closed_session_without_a_byte_is_closed(rig: Rig, legs: Legs) -> None:
    """B7, scaled from 1 s to 200 ms"""
    session = rig.open(legs, half_close_timeout_ms=200)
    session.client.fin()
    outcome = await rig.ended(session, EndReason.HALF_CLOSE_TIMEOUT)
    assert outcome.phase is Phase.HALF_CLOSED
    assert 0.2 <= outcome.total_s < 5
    assert await session.client.receive_all() == b""
    assert await session.upstream.receive_all() == b""


async def test_half_closed_session_lives_while_bytes_move(rig: Rig) -> None:
    """B8, scaled from 1 B/s for 5 s under 2 s to 1 B/0.1 s for 3 s under 2 s"""
    session = rig.open(half_close_timeout_ms=2000)
    session.client.fin()
    for _ in range(30):
        await session.upstream.send(b".")
        await pause(0.1)
    session.upstream.close()
    assert await session.client.receive_all() == b"." * 30
    await rig.ended(session, EndReason.CLIENT_EOF)


@every_leg
async def test_answer_is_whole_when_the_upstream_leaves_request_bytes_unread(rig: Rig, legs: Legs) -> None:
    """B9"""
    session = rig.open(legs)
    answer = pattern(200_000)
    await session.client.send(pattern(100 * KIB, 1))
    assert await session.upstream.receive(1)
    await session.upstream.fill(answer)
    await rig.until(lambda: rig.relay.read_slot(session.slot).received_bytes == len(answer))
    session.upstream.close()  # an RST, as request bytes are unread
    got = bytearray()
    try:
        while data := await session.client.receive(4096):
            got += data
            await asyncio.sleep(0)
    except ConnectionResetError:
        pass  # what the upstream did goes across, but not before its answer
    assert got == answer
    assert (await rig.outcome(session)).received_bytes == len(answer)


@every_leg
async def test_session_without_a_byte_ends_clean(rig: Rig, legs: Legs) -> None:
    """B10"""
    session = rig.open(legs)
    await rig.connected(session)
    session.client.close()
    assert await session.upstream.receive_all() == b""
    session.upstream.close()
    outcome = await rig.ended(session, EndReason.CLIENT_EOF)
    assert (outcome.sent_bytes, outcome.received_bytes, outcome.first_byte_s) == (0, 0, None)


async def test_no_stream_is_short_over_many_sessions(rig: Rig) -> None:
    """B11, scaled from 100 x 4 MiB to 25 x 256 KiB"""
    for number in range(scaled(100, 25)):
        data = pattern(scaled(4 * MIB, 256 * KIB), number)
        session = rig.open()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(session.client.receive_all(), name="reading")
            await session.upstream.send(data)
            session.upstream.close()
        assert reading.result() == data
        session.client.close()
        await rig.ended(session, EndReason.UPSTREAM_EOF)


async def test_tls_close_notify_and_fin_arrive_in_order(rig: Rig) -> None:
    """B12"""
    session = rig.open()
    close_notify = bytes.fromhex("15030300020100")
    await session.upstream.send(pattern(5000) + close_notify)
    session.upstream.fin()
    assert await session.client.receive_all() == pattern(5000) + close_notify
    session.client.close()
    await rig.ended(session, EndReason.UPSTREAM_EOF)


async def test_client_that_shuts_its_read_side_causes_no_spin(rig: Rig) -> None:
    """B13"""
    session = rig.open()
    await rig.connected(session)
    session.client.sock.shutdown(socket.SHUT_RD)
    await session.upstream.fill(bytes(MIB))
    before = rig.relay.statistics().turns
    await pause(0.2)
    assert rig.relay.statistics().turns - before < 50
    session.client.close()
    await session.upstream.gone()
    await rig.outcome(session)
