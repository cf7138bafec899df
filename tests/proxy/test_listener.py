"""What the listener does with the crowd at its door."""

from __future__ import annotations

import _socket
import asyncio
import errno
import os
import socket
from ipaddress import ip_network
from pathlib import Path

import pytest

from lbproxy.domain.address import ip_address, unix_address
from lbproxy.domain.session import EndReason, Phase, Rejection
from lbproxy.proxy.options import ListenerOptions, TcpOptions
from lbproxy.proxy.sockets import open_listening
from tests.proxy.rig import (
    LINGER_RESET,
    Rig,
    address_of,
    listening_socket,
    peers,
    receive,
    receive_all,
    running,
)
from tests.servers.netns import Namespace

pytestmark = pytest.mark.both_loops


def rules(allow: list[str], deny: list[str]) -> ListenerOptions:
    return ListenerOptions(
        "in", (), "up", allow=tuple(map(ip_network, allow)), deny=tuple(map(ip_network, deny))
    )


@pytest.mark.parametrize(
    ("allow", "deny", "source", "admitted"),
    [
        ([], [], "127.0.0.2", True),
        (["127.0.0.0/30"], [], "127.0.0.2", True),
        (["127.0.0.0/30"], [], "127.0.0.9", False),
        ([], ["127.0.0.2/32"], "127.0.0.2", False),
        ([], ["127.0.0.2/32"], "127.0.0.3", True),
        (["127.0.0.0/8"], ["127.0.0.2/32"], "127.0.0.2", False),
        (["::1/128"], [], "127.0.0.1", False),
    ],
)
async def test_address_rules(allow: list[str], deny: list[str], source: str, admitted: bool) -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)], rules(allow, deny))
        with rig.connect(source) as client:
            if admitted:
                assert await receive(loop, client, 1) == b"a"
            else:
                with pytest.raises(ConnectionResetError):
                    await receive_all(loop, client)
        assert rig.listener.rejected[Rejection.ACL] == (not admitted)


async def test_a_mapped_client_matches_ipv4_rules_and_is_named_as_ipv4() -> None:
    """J1: an IPv4 client of a dual-stack socket."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)], rules(["127.0.0.0/8"], []), bind=ip_address("::", 0))
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", rig.address.port))
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"a"
        [ended] = await rig.until_ended(1)
        assert ended.client == "127.0.0.1"


@pytest.mark.parametrize("name", ["@lbproxy-test-{}", "file"])
async def test_unix_sockets_on_both_sides(name: str, tmp_path: Path) -> None:
    """J4: abstract and in the file system."""
    loop = asyncio.get_running_loop()
    inside, outside = (
        unix_address(str(tmp_path / side) if name == "file" else name.format(f"{id(tmp_path)}-{side}"))
        for side in ("in", "out")
    )
    async with peers(b"u", at=outside), running() as rig:
        rig.start([outside], bind=inside)
        with rig.connect() as client:
            await loop.sock_sendall(client, b"hello")
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"uhello"
        [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.client) == (EndReason.CLIENT_EOF, "")


async def test_a_unix_socket_file_goes_with_its_listener_and_not_with_another_s(tmp_path: Path) -> None:
    path = unix_address(str(tmp_path / "s"))
    async with running() as rig:
        rig.start([], bind=path)
        assert os.path.exists(path.host)
    assert not os.path.exists(path.host)
    async with running() as rig:
        rig.start([], bind=path)
        os.unlink(path.host)
        with listening_socket(path):
            rig.listener.close()
            assert os.path.exists(path.host)


async def test_starting_beside_a_live_unix_listener_is_no_session_for_it(tmp_path: Path) -> None:
    path = unix_address(str(tmp_path / "s"))
    async with running() as rig:
        rig.start([], bind=path)
        async with running() as second:
            with pytest.raises(OSError, match="in use"):
                second.start([], bind=path)
        await asyncio.sleep(0)
        assert rig.listener.accepted == 0


async def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = unix_address(str(tmp_path / "s"))
    listening_socket(path).close()
    async with running() as rig:
        rig.start([], bind=path)
        async with running() as second:
            with pytest.raises(OSError, match="in use"):
                second.start([], bind=path)


async def test_a_unix_socket_that_takes_datagrams_is_not_replaced(tmp_path: Path) -> None:
    path = unix_address(str(tmp_path / "s"))
    async with running() as rig:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(path.host)
            with pytest.raises(OSError, match="in use"):
                rig.start([], bind=path)
            assert os.path.exists(path.host)


async def test_a_unix_listener_of_another_network_namespace_is_not_replaced(
    tmp_path: Path, netns: Namespace
) -> None:
    """As of another container that shares the folder: the kernel's table does not show it."""
    path = unix_address(str(tmp_path / "s"))
    with netns.inside():
        there = listening_socket(path)
    async with running() as rig:
        with there, pytest.raises(OSError, match="in use"):
            rig.start([], bind=path)
        assert os.path.exists(path.host)


@pytest.mark.parametrize("whose", ["listener", "process"])
async def test_at_max_connections_the_kernel_queues_and_everybody_is_served_in_turn(whose: str) -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running(limit=2 if whose == "process" else 1000) as rig:
        options = ListenerOptions("in", (), "up", max_connections=2 if whose == "listener" else 1000)
        rig.start([address_of(up[b"a"].listening)], options)
        clients = [rig.connect() for _ in range(6)]
        for client in clients[:2]:
            assert await receive(loop, client, 1) == b"a"
        assert (rig.listener.active, rig.listener.accepted, rig.listener.state) == (2, 2, "paused")
        assert rig.listener.accept_pauses == 1
        for client in clients:
            with client:
                client.shutdown(socket.SHUT_WR)
                assert (await receive_all(loop, client))[-1:] in {b"a", b""}
        await rig.until_ended(6)
        assert rig.listener.accepted == 6
        assert sum(rig.listener.rejected.values()) == 0
        assert rig.listener.state == "accepting"


async def test_a_client_reset_in_the_backlog_costs_no_upstream_connection() -> None:
    """C7."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        with socket.socket() as client:
            client.connect((rig.address.host, rig.address.port))  # blocking: the loop has no chance to accept
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.phase, ended.attempts) == (EndReason.CLIENT_GONE, Phase.ACCEPT, 0)
        assert ended.errno == errno.ECONNRESET
        with rig.connect() as client:
            assert await receive(loop, client, 1) == b"a"
        assert up[b"a"].accepted == 1


class Accepting:
    """Stands in for what accepts, a listening socket or a doorway: fails as scripted, then accepts for real."""

    def __init__(self, real: object, errors: list[int]) -> None:
        self.real = real
        self.errors = errors

    def _accept(self) -> object:
        self._fail()
        return self.real._accept()  # type: ignore[attr-defined]

    def accept(self, listening: int, most: int) -> object:
        self._fail()
        return self.real.accept(listening, most)  # type: ignore[attr-defined]

    def _fail(self) -> None:
        if self.errors:
            raise OSError(self.errors.pop(0), "scripted")

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def accept_badly(rig: Rig, errors: list[int]) -> None:
    if rig.dialer.doorway is not None:
        rig.dialer.doorway = Accepting(rig.dialer.doorway, errors)  # type: ignore[assignment]
        return
    [bind] = rig.listener.sockets
    rig.listener.add(bind, Accepting(rig.listener.hand_over(bind), errors))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_overload_pauses_accepting_is_counted_and_passes(error: int) -> None:
    """H2."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        accept_badly(rig, [error, error])
        with rig.connect() as client:
            assert await receive(loop, client, 1) == b"a"
        assert rig.listener.accept_pauses == 2


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EHOSTUNREACH])
async def test_passing_accept_errors_are_ignored(error: int) -> None:
    """H3."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        accept_badly(rig, [error] * 3)
        with rig.connect() as client:
            assert await receive(loop, client, 1) == b"a"
        assert rig.listener.accept_pauses == 0


async def test_closing_serves_what_the_accept_queue_holds() -> None:
    """K6."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        clients = [socket.create_connection((rig.address.host, rig.address.port)) for _ in range(20)]
        rig.listener.close()
        for client in clients:
            client.setblocking(False)
            with client:
                assert await receive(loop, client, 1) == b"a"
        await rig.until_ended(20)
        assert rig.listener.state == "draining"


async def test_an_address_moves_to_another_listener_with_its_queue() -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        with socket.create_connection((rig.address.host, rig.address.port)) as client:
            client.setblocking(False)
            [bind] = rig.listener.sockets
            rig.listener.add(bind, rig.listener.hand_over(bind))
            assert await receive(loop, client, 1) == b"a"


async def test_addresses_are_told_in_the_configurations_order_also_after_a_reload() -> None:
    async with running() as rig:
        rig.start([])
        [first] = rig.listener.sockets
        for host in ("127.0.0.3", "127.0.0.2"):
            before = ip_address(host, 0)
            options = ListenerOptions("in", (before, *rig.listener.options.binds), "up")
            rig.listener.configure(options, rig.route)
            rig.listener.add(before, open_listening(before, options.tcp, options.backlog, v6only=False))
        assert [each.host for each in rig.listener.addresses] == ["127.0.0.2", "127.0.0.3", first.host]
        options = ListenerOptions("in", tuple(reversed(options.binds)), "up")
        rig.listener.configure(options, rig.route)
        assert [each.host for each in rig.listener.addresses] == [first.host, "127.0.0.3", "127.0.0.2"]


async def test_options_that_are_no_longer_configured_go_back_to_the_kernels_own() -> None:
    async with running() as rig:
        set_ = TcpOptions(keepalive_s=60, user_timeout_s=3, notsent_lowat_bytes=4096)
        rig.start([], ListenerOptions("in", (), "up", tcp=set_))
        [listening] = rig.listener.sockets.values()
        read = [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
        ]
        assert [listening.getsockopt(*option) for option in read] == [1, 3000, 4096]
        rig.listener.configure(ListenerOptions("in", (), "up", tcp=TcpOptions(keepalive_s=None)), rig.route)
        assert [listening.getsockopt(*option) for option in read] == [0, 0, 0]


async def test_a_socket_that_comes_from_elsewhere_gets_the_listeners_options() -> None:
    async with running() as rig:
        rig.start([])
        made = _socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.bind(("127.0.0.1", 0))
        rig.listener.add(ip_address("127.0.0.1", made.getsockname()[1]), made)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
