"""Conformance D: the relay finishes the connect; one that fails gives the client back, untouched."""

from __future__ import annotations

import _socket
import asyncio
import errno
import socket
import time

import pytest

from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.contract import Socket
from tests.relay.peers import Peer, pattern, readable_now
from tests.relay.rig import LEGS, TCP, Legs, Listener, Rig, Session, bare
from tests.relay.scale import KIB
from tests.relay.timing import some_within

pytestmark = pytest.mark.both_loops

every_leg = pytest.mark.parametrize("legs", LEGS.values(), ids=LEGS)


def refused() -> Socket:
    """A socket whose connect is being refused: the port is bound, and nobody listens."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    dialing = _socket.socket()
    dialing.setblocking(False)
    dialing.connect_ex(held.getsockname())
    held.close()
    return dialing


@every_leg
async def test_banner_of_a_server_that_speaks_first(rig: Rig, legs: Legs) -> None:
    """D5: 50 ms, with the suite's tolerance"""
    sessions: list[Session] = []

    async def attempt() -> float:
        sessions.append(rig.open(legs))
        began = time.monotonic()
        await sessions[-1].upstream.send(b"220 x\r\n")
        assert await sessions[-1].client.receive_exactly(7) == b"220 x\r\n"
        return time.monotonic() - began

    await some_within(0.5, attempt)
    session = sessions[-1]
    await rig.until(lambda: rig.view(session).received_bytes == 7)
    view = rig.view(session)
    assert (view.sent_bytes, view.phase) == (0, Phase.RELAY)
    session.client.close()
    session.upstream.close()
    outcome = await rig.outcome(session)
    assert outcome.connect_s is not None
    assert outcome.first_byte_s is not None
    assert outcome.connect_s <= outcome.first_byte_s <= outcome.total_s


async def test_nothing_is_read_from_the_client_before_the_upstream_is_connected(rig: Rig) -> None:
    """D6: the SYN is answered when it is repeated, after a second."""
    client, client_end = rig.client()
    before_the_syn = time.monotonic()
    listener, dialing = rig.full_listener()
    number = rig.submit(client_end, dialing)
    submitted = time.monotonic()
    data = pattern(64 * KIB)
    await client.send(data)
    assert rig.relay.statistics().pending_bytes == 0
    (view,) = rig.relay.sessions()
    assert (view.phase, view.sent_bytes) == (Phase.CONNECT, 0)
    fillers = [rig.keep(listener.accept())]
    connected = await rig.connected(number)
    assert connected.connect_s > 0.9 - (submitted - before_the_syn)
    upstream = await accept_the_one_that_speaks(rig, listener, fillers)
    assert await upstream.receive_exactly(len(data)) == data
    client.close()
    upstream.close()
    await rig.ended(number, EndReason.CLIENT_EOF)


async def accept_the_one_that_speaks(rig: Rig, listener: Listener, accepted: list[Peer]) -> Peer:
    """The relay's connection among those that fill the queue."""
    listener.sock.setblocking(False)
    for _ in range(500):
        for peer in accepted:
            if readable_now(peer.sock):
                return peer
        try:
            accepted.append(rig.keep(Peer(listener.sock.accept()[0])))
        except BlockingIOError:
            await asyncio.sleep(0.01)
    raise AssertionError("nobody speaks")


async def test_refused_connect_gives_the_client_back_for_another_try(rig: Rig) -> None:
    """D1: the bytes that wait are the next upstream's."""
    client, client_end = rig.client()
    await client.send(b"request")
    first = rig.submit(client_end, refused(), first_bytes=b"PROXY")
    outcome = await rig.ended(first, EndReason.CONNECT_REFUSED)
    assert (outcome.errno, outcome.phase, outcome.connect_s) == (
        errno.ECONNREFUSED,
        Phase.CONNECT,
        None,
    )
    assert outcome.client is not None
    assert outcome.client.recv(100, socket.MSG_PEEK) == b"request"
    listener = rig.listener()
    second = rig.submit(outcome.client, bare(listener.dial()))
    upstream = rig.keep(listener.accept())
    assert await upstream.receive_exactly(7) == b"request"
    client.close()
    upstream.close()
    await rig.ended(second, EndReason.CLIENT_EOF)


async def test_client_given_back_is_no_longer_watched(rig: Rig) -> None:
    """D1"""
    client, client_end = rig.client()
    outcome = await rig.outcome(rig.submit(client_end, refused()))
    assert outcome.client is not None
    turns = rig.relay.statistics().turns
    client.reset()
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.relay.statistics().turns == turns
    outcome.client.close()


async def test_connect_without_an_answer_times_out(rig: Rig) -> None:
    """D3, F5"""
    client, client_end = rig.client()
    await client.send(b"waiting")
    _, dialing = rig.full_listener()
    number = rig.submit(client_end, dialing, connect_timeout_ms=200, idle_timeout_ms=50)
    outcome = await rig.ended(number, EndReason.CONNECT_TIMEOUT)
    assert 0.2 <= outcome.total_s < 4.5  # where all others have five seconds
    assert outcome.phase is Phase.CONNECT
    assert outcome.client is not None
    assert outcome.client.recv(100) == b"waiting"
    outcome.client.close()


async def test_socket_that_answers_itself_is_refused(rig: Rig) -> None:
    """D10, as far as it is the relay's: a dial to a dead local port may meet its own SYN."""
    _, client_end = rig.client()
    mirror = _socket.socket()
    mirror.bind(("127.0.0.1", 0))
    mirror.setblocking(False)
    mirror.connect_ex(mirror.getsockname())
    outcome = await rig.ended(rig.submit(client_end, mirror), EndReason.CONNECT_REFUSED)
    assert outcome.client is not None
    outcome.client.close()


async def test_socket_that_never_dialled_is_a_failed_connect(rig: Rig) -> None:
    _, client_end = rig.client()
    idle = _socket.socket()
    idle.setblocking(False)
    outcome = await rig.outcome(rig.submit(client_end, idle))
    assert outcome.phase is Phase.CONNECT
    assert outcome.client is not None
    outcome.client.close()


async def test_no_second_try_once_the_upstream_was_reached(rig: Rig) -> None:
    """D12: whatever happens after Connected, the client is not given back."""
    session = rig.open()
    await session.client.send(b"delivered")
    assert await session.upstream.receive_exactly(9)
    session.upstream.reset()
    outcome = await rig.ended(session, EndReason.UPSTREAM_RESET)
    assert outcome.client is None
    assert await session.client.receive_until_reset() == b""


@pytest.mark.parametrize("legs", [TCP, LEGS["unix"]], ids=["tcp", "unix"])
async def test_first_bytes_come_before_the_clients_and_are_not_counted(rig: Rig, legs: Legs) -> None:
    session = rig.open(legs, first_bytes=b"PROXY TCP4 ...\r\n")
    await session.client.send(b"hello")
    assert await session.upstream.receive_exactly(21) == b"PROXY TCP4 ...\r\nhello"
    await rig.until(lambda: rig.relay.read_slot(session.slot).sent_bytes == 5)
    session.client.close()
    session.upstream.close()
    assert (await rig.outcome(session)).sent_bytes == 5
