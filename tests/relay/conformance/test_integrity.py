"""Conformance A: every byte arrives, once, in order, and nobody else's."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import time

import pytest

from lbproxy.domain.session import EndReason
from tests.relay.peers import Peer, pattern
from tests.relay.resident import resident_bytes
from tests.relay.rig import LEGS, TCP, Legs, Rig, Session
from tests.relay.scale import KIB, MIB, scaled
from tests.relay.timing import at_percent, some_within

pytestmark = pytest.mark.both_loops

every_leg = pytest.mark.parametrize("legs", LEGS.values(), ids=LEGS)

SIZES = (0, 1, 2, 1447, 1448, 1449, 4095, 4096, 4097, 65535, 65536, 65537, 1_048_577)


@every_leg
async def test_echo_of_sizes_around_every_boundary(rig: Rig, legs: Legs) -> None:
    """A1"""
    for seed, size in enumerate(SIZES):
        session = rig.open(legs)
        data = pattern(size, seed)
        async with asyncio.TaskGroup() as group:
            group.create_task(session.upstream.echo(), name="echo")
            reading = group.create_task(session.client.receive_all(), name="reading")
            await session.client.send(data)
            session.client.fin()
        assert reading.result() == data
        session.upstream.close()
        outcome = await rig.ended(session, EndReason.CLIENT_EOF)
        assert outcome.sent_bytes == outcome.received_bytes == size


async def test_single_bytes_are_all_relayed(rig: Rig) -> None:
    """A2"""
    session = rig.open()
    data = pattern(scaled(10_000, 2_000))
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.upstream.receive_all(), name="reading")
        for position in range(len(data)):
            await session.client.send(data[position : position + 1])
        session.client.fin()
    assert reading.result() == data


@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_large_streams_both_ways_at_once(rig: Rig, legs: Legs) -> None:
    """A3, scaled from 64 MiB to 8 MiB each way"""
    session = rig.open(legs)
    size = scaled(64 * MIB, 8 * MIB)
    async with asyncio.TaskGroup() as group:
        for seed, source, sink in (
            (1, session.client, session.upstream),
            (2, session.upstream, session.client),
        ):
            group.create_task(send_in_chunks(source, pattern(size, seed), seed), name="sending")
            group.create_task(expect_digest(sink, pattern(size, seed)), name="reading")
    session.client.close()
    session.upstream.close()
    outcome = await rig.outcome(session)
    assert outcome.sent_bytes == outcome.received_bytes == size


async def send_in_chunks(peer: Peer, data: bytes, seed: int) -> None:
    chance = random.Random(seed)
    position = 0
    while position < len(data):
        size = chance.choice((1, 100, 1448, 4096, 65536, 300_000))
        await peer.send(data[position : position + size])
        position += size
    peer.fin()


async def expect_digest(peer: Peer, expected: bytes) -> None:
    digest = hashlib.sha256()
    while data := await peer.receive():
        digest.update(data)
    assert digest.digest() == hashlib.sha256(expected).digest()


async def test_small_reads_of_a_large_stream_take_no_memory(rig: Rig) -> None:
    """A4, scaled from 1 GiB to 16 MiB; memory with the suite's tolerance: 10 MiB"""
    session = rig.open()
    block = pattern(MIB)
    blocks = scaled(1024, 16)
    before = resident_bytes()

    async def send() -> None:
        for _ in range(blocks):
            await session.upstream.send(block)
        session.upstream.fin()

    async with asyncio.TaskGroup() as group:
        group.create_task(send(), name="sending")
        for number in range(blocks * 1024):
            assert await session.client.receive_exactly(1024) == block[number % 1024 * 1024 :][:1024]
    assert await session.client.receive_all() == b""
    assert resident_bytes() - before < 10 * MIB


async def test_many_sessions_are_not_mixed_up(rig: Rig) -> None:
    """A5, scaled from 1,000 connections for 60 s to 100 connections for 20 rounds"""
    sessions = [rig.open() for _ in range(scaled(1000, 100))]
    chance = random.Random(5)
    expected = {session.number: (bytearray(), bytearray()) for session in sessions}

    async def read(session: Session) -> None:
        up, down = expected[session.number]
        assert await session.upstream.receive_all() == up
        assert await session.client.receive_all() == down

    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(read(session), name=f"session {session.number}")
        for round_number in range(scaled(500, 20)):
            for session in chance.sample(sessions, len(sessions)):
                data = pattern(chance.randrange(1, 3000), session.number * 1000 + round_number)
                way = chance.randrange(2)
                expected[session.number][way].extend(data)
                await (session.client, session.upstream)[way].send(data)
        for session in sessions:
            session.client.fin()
            session.upstream.fin()


async def test_requests_are_not_held_back(rig: Rig) -> None:
    """A7, scaled from 10,000 to 1,000 requests. A corked or delayed answer costs 40 ms or 200 ms, each time."""
    session = rig.open()

    async def attempt() -> float:
        took = []
        for _ in range(scaled(10_000, 1_000)):
            before = time.perf_counter()
            await session.client.send(b"q" * 100)
            assert await session.upstream.receive_exactly(100)
            await session.upstream.send(b"a" * 100)
            assert await session.client.receive_exactly(100)
            took.append(time.perf_counter() - before)
        return at_percent(95, took)

    await some_within(0.03, attempt)


async def test_small_segments(rig: Rig) -> None:
    """A8, scaled from 10 MiB to 1 MiB"""

    def small(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)

    session = rig.open(tune=small)
    data = pattern(scaled(10 * MIB, MIB))
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.client.receive_all(), name="reading")
        await session.upstream.send(data)
        session.upstream.fin()
    assert reading.result() == data


@pytest.mark.parametrize("size", [64 * KIB, 128 * KIB, 256 * KIB, 1024 * KIB])
async def test_one_byte_after_a_full_buffer(rig: Rig, size: int) -> None:
    """A9: 100 ms, with the suite's tolerance; the sizes of a pipe, a turn and a socket's buffer"""
    session = rig.open()
    data = pattern(size)

    async def attempt() -> float:
        await session.upstream.send(data)
        before = time.perf_counter()
        assert await session.client.receive_exactly(size) == data
        await session.upstream.send(b"!")
        assert await session.client.receive_exactly(1) == b"!"
        return time.perf_counter() - before

    await some_within(1.0, attempt)


async def test_slices_of_few_bytes(rig: Rig) -> None:
    """A10, scaled from 1 MiB to 8 KiB"""
    session = rig.open()
    data = pattern(scaled(MIB, 8 * KIB))
    chance = random.Random(10)
    position = 0
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.upstream.receive_all(), name="reading")
        while position < len(data):
            size = chance.randrange(1, 4)
            await session.client.send(data[position : position + size])
            position += size
        session.client.fin()
    assert reading.result() == data


@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_both_sides_write_before_they_read(rig: Rig, legs: Legs) -> None:
    """A11, scaled from 32 MiB to 24 MiB, which is more than all buffers hold: both senders stall"""
    session = rig.open(legs)
    data = pattern(scaled(32 * MIB, 24 * MIB))
    up_taken = await session.client.fill(data)
    down_taken = await session.upstream.fill(data)
    assert up_taken < len(data)
    assert down_taken < len(data)
    async with asyncio.TaskGroup() as group:
        group.create_task(session.client.send(data[up_taken:]), name="client sends")
        group.create_task(session.upstream.send(data[down_taken:]), name="upstream sends")
        up = group.create_task(session.upstream.receive_exactly(len(data)), name="upstream reads")
        down = group.create_task(session.client.receive_exactly(len(data)), name="client reads")
    assert up.result() == data
    assert down.result() == data


@every_leg
async def test_no_byte_has_a_meaning(rig: Rig, legs: Legs) -> None:
    """A12"""
    data = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + bytes(range(256)) + b"\0\0\0+++ATH\r\n"
    session = rig.open(legs)
    await session.client.send(data)
    await session.upstream.send(data[::-1])
    assert await session.upstream.receive_exactly(len(data)) == data
    assert await session.client.receive_exactly(len(data)) == data[::-1]
