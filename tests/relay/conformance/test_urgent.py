"""Conformance G: urgent bytes stay in the stream and stall nothing; no wake-up is lost, no buffer is mixed up."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from lbproxy.domain.session import EndReason
from tests.patience import WITHIN_S
from tests.relay.peers import pattern, pause
from tests.relay.rig import Rig
from tests.relay.scale import MIB, scaled
from tests.relay.timing import at_percent, some_within

pytestmark = pytest.mark.both_loops


async def test_urgent_byte_arrives_in_line_and_causes_no_spin(rig: Rig) -> None:
    """G1"""
    session = rig.open()
    await session.client.send(b"abc")
    session.client.urgent(b"!")
    assert await session.upstream.receive_exactly(4) == b"abc!"
    before = rig.relay.statistics().turns
    await pause(0.1)
    assert rig.relay.statistics().turns - before < 10
    await session.client.send(b"def")
    session.client.fin()
    assert await session.upstream.receive_all() == b"def"
    session.upstream.close()
    await rig.ended(session, EndReason.CLIENT_EOF)


async def test_everything_is_there_before_the_relay_looks(rig: Rig) -> None:
    """G1"""
    session = rig.open()
    session.client.sock.send(b"abc")
    session.client.urgent(b"!")
    session.client.sock.send(b"def")
    session.client.fin()
    assert await session.upstream.receive_all() == b"abc!def"


async def test_urgent_byte_in_the_middle_of_a_large_stream(rig: Rig) -> None:
    """G2, scaled from 13,107,200 bytes on each side of it to a tenth"""
    part = pattern(scaled(13_107_200, 1_310_720))
    session = rig.open()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.upstream.receive_all(), name="reading")
        await session.client.send(part)
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    session.client.urgent(b"!")
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
        await session.client.send(part)
        session.client.fin()
    assert reading.result() == part + b"!" + part


@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
async def test_urgent_byte_first_and_last(rig: Rig, answer: bool) -> None:
    """G3"""
    session = rig.open()
    source, sink = (session.upstream, session.client) if answer else (session.client, session.upstream)
    source.urgent(b"1")
    await source.send(b"middle")
    source.urgent(b"2")
    source.fin()
    assert await sink.receive_all() == b"1middle2"


async def test_many_urgent_bytes(rig: Rig) -> None:
    """G3"""
    session = rig.open()
    for number in range(1000):
        session.client.urgent(bytes([number % 256]))
        if number % 7 == 0:
            await asyncio.sleep(0)
    session.client.fin()
    assert await session.upstream.receive_all() == bytes(number % 256 for number in range(1000))


async def test_bytes_of_an_aborted_session_reach_nobody_else(rig: Rig) -> None:
    """G7"""
    stalled = rig.open()
    await stalled.client.fill(b"\xff" * (16 * MIB))
    await rig.until(lambda: rig.relay.statistics().pending_bytes > 0)
    assert rig.relay.abort(stalled.number, EndReason.KILLED, reset=True)
    sessions = [rig.open() for _ in range(scaled(100, 40))]
    for number, session in enumerate(sessions):
        await session.client.send(pattern(1000, number))
        session.client.fin()
    for number, session in enumerate(sessions):
        assert await session.upstream.receive_all() == pattern(1000, number)
    await rig.ended(stalled, EndReason.KILLED)


async def test_no_wake_up_is_lost_between_stalls(rig: Rig) -> None:
    """G8, scaled from 1,000 rounds to 60: the reader pauses until the relay is blocked, then takes everything"""
    session = rig.open(tune=small_buffers)
    data = pattern(3 * MIB)
    for _ in range(scaled(1000, 60)):
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(session.client.send(data), name="sending")
            await rig.until(lambda: rig.relay.statistics().pending_bytes > 0)
            assert await session.upstream.receive_exactly(len(data)) == data
            await sending
        await rig.until(lambda: rig.relay.statistics().pending_bytes == 0)


def small_buffers(sock: socket.socket) -> None:
    """Fixed buffers, but of several of loopback's 64 KiB segments: with less, TCP itself stalls for 200 ms at a time."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)


async def test_small_pieces_are_not_held_back(rig: Rig) -> None:
    """G9: 20 ms, for most of them"""
    session = rig.open()

    async def attempt() -> float:
        took = []
        for number in range(scaled(100, 30)):
            before = time.perf_counter()
            await session.upstream.send(pattern(100, number))
            assert await session.client.receive_exactly(100) == pattern(100, number)
            took.append(time.perf_counter() - before)
            await pause(0.01)
        return at_percent(90, took)

    await some_within(0.02, attempt)
