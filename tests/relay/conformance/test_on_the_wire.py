"""Conformance C11, C12, F7: what needs a network of its own, to count or to forge packets.

The sockets are made inside a network namespace; the relay and the test stay where they are.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct

import pytest

from lbproxy.domain.session import EndReason
from tests.relay.peers import pattern
from tests.relay.rig import Rig, Session
from tests.relay.scale import scaled
from tests.servers.netns import Namespace

pytestmark = pytest.mark.both_loops


def resets_sent(netns: Namespace) -> int:
    """TcpOutRsts: every RST that the namespace's kernel has sent, whoever asked for it."""
    for line in netns.run(["nstat", "-asz", "TcpOutRsts"]).stdout.splitlines():
        if line.startswith("TcpOutRsts"):
            return int(line.split()[1])
    raise AssertionError("nstat does not know TcpOutRsts")


async def test_clean_ends_send_no_reset(rig: Rig, netns: Namespace) -> None:
    """C11 and B6, scaled from 1,000 to 150 connections: each order of ends there is"""
    before = resets_sent(netns)
    for number in range(scaled(1000, 150)):
        with netns.inside():
            session = rig.open(idle_timeout_ms=60_000)
        await session.client.send(b"request")
        assert await session.upstream.receive_exactly(7) == b"request"
        await session.upstream.send(b"answer")
        first, second = (session.client, session.upstream)[:: 1 if number % 2 else -1]
        if number % 3 == 0:
            session.client.fin()
            session.upstream.fin()
        else:
            first.fin()
            await rig.until(lambda: rig.view(session).phase == "half_closed")  # noqa: B023  asked at once
            second.fin()
        assert await session.client.receive_all() == b"answer"
        assert await session.upstream.receive_all() == b""
        session.client.close()
        session.upstream.close()
        assert (await rig.outcome(session)).errno == 0
    assert resets_sent(netns) == before


async def test_idle_end_sends_no_reset(rig: Rig, netns: Namespace) -> None:
    """C11 for an end of the relay's own"""
    before = resets_sent(netns)
    with netns.inside():
        session = rig.open(idle_timeout_ms=100)
    await session.client.send(b"request")
    assert await session.upstream.receive_exactly(7) == b"request"
    await rig.ended(session, EndReason.IDLE_TIMEOUT)
    assert await session.client.receive_all() == b""
    assert await session.upstream.receive_all() == b""
    assert resets_sent(netns) == before


async def test_forged_reset_outside_the_window_changes_nothing(rig: Rig, netns: Namespace) -> None:
    """C12: the kernel drops it; the relay must not make more of the event than there is"""
    with netns.inside():
        session = rig.open()
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    await session.client.send(b"before")
    assert await session.upstream.receive_exactly(6) == b"before"
    chance = random.Random(12)
    with raw:
        for peer in (session.client, session.upstream):
            for _ in range(10):
                raw.sendto(forged_reset(peer.sock, chance.getrandbits(32)), ("127.0.0.1", 0))
    data = pattern(100_000)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.upstream.receive_exactly(len(data)), name="reading")
        await session.client.send(data)
    assert reading.result() == data
    session.client.close()
    session.upstream.close()
    await rig.ended(session, EndReason.CLIENT_EOF)


def forged_reset(victim: socket.socket, sequence: int) -> bytes:
    """An RST to the relay's end of `victim`'s connection, as if `victim` had sent it."""
    source, target = victim.getsockname(), victim.getpeername()
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])

    def header(checksum: int) -> bytes:
        return struct.pack("!HHIIBBHHH", source[1], target[1], sequence, 0, 5 << 4, 0x04, 0, checksum, 0)

    pseudo = addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20) + header(0)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    return ip + header(~total & 0xFFFF)


async def test_forged_reset_with_the_right_number_would_count(rig: Rig, netns: Namespace) -> None:
    """C12's own check: the forgery is a packet that the kernel understands, so the case above can fail."""
    with netns.inside():
        session = rig.open()
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    await rig.connected(session)
    with raw:
        raw.sendto(forged_reset(session.client.sock, next_sequence(session)), ("127.0.0.1", 0))
    await rig.ended(session, EndReason.CLIENT_RESET)


def next_sequence(session: Session) -> int:
    """The sequence number of the client's next byte (TCP_REPAIR lets the owner of a socket ask for it)."""
    repair, repair_queue, queue_sequence, send_queue = 19, 20, 21, 2
    sock = session.client.sock
    sock.setsockopt(socket.IPPROTO_TCP, repair, 1)
    sock.setsockopt(socket.IPPROTO_TCP, repair_queue, send_queue)
    number = sock.getsockopt(socket.IPPROTO_TCP, queue_sequence) & 0xFFFFFFFF
    sock.setsockopt(socket.IPPROTO_TCP, repair, 0)
    return number


async def test_bytes_that_are_never_acknowledged_end_the_session(rig: Rig, netns: Namespace) -> None:
    """F7: the caller has set TCP_USER_TIMEOUT to 1 s on the upstream socket; its ACKs are dropped"""

    def impatient(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)

    with netns.inside():
        session = rig.open(tune=impatient)
    await rig.connected(session)
    port = session.upstream.sock.getsockname()[1]
    netns.nft(f"""
        table ip silence {{
            chain arriving {{
                type filter hook input priority 0
                tcp sport {port} drop
            }}
        }}
    """)
    before = rig.loop.time()
    await session.client.send(b"into the void")
    outcome = await rig.ended(session, EndReason.UPSTREAM_RESET)
    assert outcome.errno == 110  # ETIMEDOUT
    assert 0.9 <= rig.loop.time() - before < 5
    assert await session.client.receive_until_reset() == b""
