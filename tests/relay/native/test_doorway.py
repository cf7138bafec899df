"""The doorway: clients and dials as plain descriptors."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lbproxy.domain.session import EndReason
from lbproxy.relay.contract import Dial, Doorway, Plan
from lbproxy.relay.native.relay import NativeRelay
from tests.relay.peers import Peer, segments_received
from tests.relay.rig import Listener, Rig, rig_for
from tests.relay.timing import some_within
from tests.servers.netns import Namespace

pytestmark = pytest.mark.both_loops

NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
INLINE = (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_for(lambda loop, on_events: NativeRelay(loop, on_events, threads=2), tmp_path) as rig:
        yield rig


def doorway_of(rig: Rig) -> Doorway:
    assert rig.relay.doorway is not None
    return rig.relay.doorway


def plan_to(rig: Rig, listener: Listener, *options: tuple[int, int, int]) -> Plan:
    dial = Dial(listener.sock.family, listener.sock.getsockname(), options, rig.options)
    return doorway_of(rig).prepare(dial)


def waiting(listener: Listener, count: int) -> list[socket.socket]:
    listener.sock.setblocking(False)
    return [listener.dial() for _ in range(count)]


@pytest.mark.parametrize("kind", ["inet", "inet6", "unix"])
async def test_clients_come_in_order_with_their_addresses(rig: Rig, kind: str) -> None:
    listener = rig.listener(kind)  # type: ignore[arg-type]
    clients = waiting(listener, 3)
    arrivals = doorway_of(rig).accept(listener.sock.fileno(), 2)
    arrivals = [*arrivals, *doorway_of(rig).accept(listener.sock.fileno(), 10)]
    assert doorway_of(rig).accept(listener.sock.fileno(), 10) == []
    wanted = [("", 0) if kind == "unix" else client.getsockname()[:2] for client in clients]
    assert [(host, port) for _, host, port, _ in arrivals] == wanted
    assert [gone for *_, gone in arrivals] == [0, 0, 0]
    for (fd, *_), client in zip(arrivals, clients, strict=True):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        os.close(fd)
        client.close()


async def test_ipv4_client_of_an_ipv6_socket_is_spelled_as_the_kernel_does(rig: Rig) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        listening.setblocking(False)
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1])) as client:
            ((fd, host, port, gone),) = doorway_of(rig).accept(listening.fileno(), 10)
            assert (host, port, gone) == ("::ffff:127.0.0.1", client.getsockname()[1], 0)
            os.close(fd)


async def test_client_that_was_reset_meanwhile_is_told(rig: Rig) -> None:
    listener = rig.listener()
    (client,) = waiting(listener, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    ((fd, _, _, gone),) = doorway_of(rig).accept(listener.sock.fileno(), 10)
    assert gone == errno.ECONNRESET
    os.close(fd)


async def test_zone_of_a_client_is_not_told(rig: Rig, netns: Namespace) -> None:
    """As by Python's accept: a client has one spelling, whichever way it comes."""
    for words in ("link add va type veth peer name vb", "addr add fe80::1/64 dev va nodad", "link set va up"):
        netns.run(["ip", *words.split()])
    with netns.inside(), socket.create_server(("::", 0), family=socket.AF_INET6) as listening:
        listening.setblocking(False)
        target = ("fe80::1%va", listening.getsockname()[1])
        with socket.create_connection(target), socket.create_connection(target):
            accepted, (name, *_) = listening.accept()
            ((fd, host, _, _),) = doorway_of(rig).accept(listening.fileno(), 10)
            accepted.close()
            os.close(fd)
    assert host == name == "fe80::1"


async def test_accept_that_fails_raises(rig: Rig) -> None:
    nonblocking = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    with socket.socket(type=nonblocking) as deaf, pytest.raises(OSError, match="Invalid") as caught:
        doorway_of(rig).accept(deaf.fileno(), 10)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("kind", ["inet", "inet6", "unix"])
async def test_launched_session_is_relayed(rig: Rig, kind: str) -> None:
    listener = rig.listener(kind)  # type: ignore[arg-type]
    client, client_end = rig.client()
    options = () if kind == "unix" else (NODELAY, INLINE)
    plan = plan_to(rig, listener, *options)
    assert doorway_of(rig).launch(1, client_end.detach(), plan, client_unix=False) == 0
    doorway_of(rig).flush()
    upstream = rig.keep(listener.accept())
    await client.send(b"there")
    assert await upstream.receive_exactly(5) == b"there"
    await upstream.send(b"and back")
    assert await client.receive_exactly(8) == b"and back"
    assert rig.relay.abort(1, EndReason.DRAINED, reset=False)
    await rig.ended(1, EndReason.DRAINED)


async def test_failed_connect_leaves_the_client(rig: Rig, tmp_path: Path) -> None:
    """A unix socket that nobody made fails at once, where TCP's refusal comes as an Outcome."""
    client, client_end = rig.client()
    dial = Dial(socket.AF_UNIX, str(tmp_path / "nobody"), (), rig.options)
    plan = doorway_of(rig).prepare(dial)
    assert doorway_of(rig).launch(1, client_end.fileno(), plan, client_unix=False) == errno.ENOENT
    await client.send(b"untouched")
    assert client_end.recv(100) == b"untouched"
    assert rig.relay.statistics().submitted == 0
    client_end.close()


async def test_refused_dial_gives_the_client_back(rig: Rig) -> None:
    client, client_end = rig.client()
    listener = rig.listener()
    plan = plan_to(rig, listener)
    listener.sock.close()
    assert doorway_of(rig).launch(1, client_end.detach(), plan, client_unix=False) == 0
    doorway_of(rig).flush()
    outcome = await rig.ended(1, EndReason.CONNECT_REFUSED)
    assert outcome.client is not None
    outcome.client.close()
    client.close()


async def test_refused_option_is_our_own_fault(rig: Rig) -> None:
    _, client_end = rig.client()
    plan = plan_to(rig, rig.listener(), (socket.SOL_SOCKET, 9999, 1))
    with pytest.raises(OSError, match="not available") as caught:
        doorway_of(rig).launch(1, client_end.fileno(), plan, client_unix=False)
    assert caught.value.errno == errno.ENOPROTOOPT
    client_end.close()


async def test_closed_relay_refuses(rig: Rig) -> None:
    client, client_end = rig.client()
    plan = plan_to(rig, rig.listener())
    rig.relay.close()
    with pytest.raises(OSError, match="closed"):
        doorway_of(rig).launch(1, client_end.fileno(), plan, client_unix=False)
    client_end.close()
    assert isinstance(client, Peer)


async def test_engine_that_refuses_a_session_leaves_no_socket(rig: Rig) -> None:
    """The slot is not there: the dial was made, and is hung up."""
    _, client_end = rig.client()
    listener = rig.listener()
    dial = Dial(listener.sock.family, listener.sock.getsockname(), (), rig.limits(slot=77))
    plan = doorway_of(rig).prepare(dial)
    with pytest.raises(OSError, match="Invalid"):
        doorway_of(rig).launch(1, client_end.fileno(), plan, client_unix=False)
    upstream = rig.keep(listener.accept())
    assert await upstream.receive_all() == b""
    client_end.close()


async def test_reference_to_a_plan_is_all_it_takes(rig: Rig) -> None:
    with pytest.raises(ValueError, match="PyCapsule"):
        doorway_of(rig).launch(1, 0, Plan(object()), client_unix=False)


async def test_first_bytes_of_a_client_acknowledge_the_dial(rig: Rig) -> None:
    """Nothing comes between the SYN and the bytes. Of several sessions one will do: where the thread does not run for 200 ms, the kernel
    acknowledges by itself."""
    listener = rig.listener()
    plan = plan_to(rig, listener, NODELAY, INLINE)
    received = []
    for number in range(5):
        client, client_end = rig.client()
        await client.send(b"there")
        assert doorway_of(rig).launch(number, client_end.detach(), plan, client_unix=False) == 0
        doorway_of(rig).flush()
        upstream = rig.keep(listener.accept())
        assert await upstream.receive_exactly(5) == b"there"
        received.append(segments_received(upstream.sock))
        assert rig.relay.abort(number, EndReason.DRAINED, reset=False)
        await rig.ended(number, EndReason.DRAINED)
    assert min(received) == 2


async def test_upstream_that_speaks_first_need_not_wait_for_the_client(rig: Rig) -> None:
    listener = rig.listener()
    client, client_end = rig.client()
    plan = plan_to(rig, listener, NODELAY, INLINE)
    assert doorway_of(rig).launch(1, client_end.detach(), plan, client_unix=False) == 0
    doorway_of(rig).flush()
    upstream = rig.keep(listener.accept())
    await upstream.send(b"welcome")
    assert await client.receive_exactly(7) == b"welcome"
    assert rig.relay.abort(1, EndReason.DRAINED, reset=False)
    await rig.ended(1, EndReason.DRAINED)


@pytest.mark.parametrize("early", [True, False])
async def test_answer_in_two_writes_is_acknowledged_at_once(rig: Rig, early: bool) -> None:
    """An upstream with Nagle's algorithm on sends its second write when the first is acknowledged; the kernel would delay that for 40 ms."""
    listener = rig.listener()
    plan = plan_to(rig, listener, NODELAY, INLINE)
    numbers = iter(range(1000))

    async def attempt() -> float:
        number = next(numbers)
        client, client_end = rig.client()
        if early:
            await client.send(b"request")
        assert doorway_of(rig).launch(number, client_end.detach(), plan, client_unix=False) == 0
        doorway_of(rig).flush()
        upstream = rig.keep(listener.accept())
        upstream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        if not early:
            await client.send(b"request")
        assert await upstream.receive_exactly(7) == b"request"
        began = rig.loop.time()
        await upstream.send(b"head")
        await upstream.send(b"body")
        assert await client.receive_exactly(8) == b"headbody"
        took_s = rig.loop.time() - began
        assert rig.relay.abort(number, EndReason.DRAINED, reset=False)
        await rig.ended(number, EndReason.DRAINED)
        return took_s

    await some_within(0.02, attempt)
