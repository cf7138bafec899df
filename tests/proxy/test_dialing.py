"""What a client sees of upstreams that refuse, hang, are full or come back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest

from lbproxy.domain.address import ip_address
from lbproxy.domain.errors import ConnectFailure
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.session import EndReason, Phase, Rejection, State
from lbproxy.proxy.options import ConnectOptions, ListenerOptions, TcpOptions, Timeouts
from tests.patience import WITHIN_S
from tests.proxy.rig import (
    LINGER_RESET,
    address_of,
    listening_socket,
    peers,
    receive,
    receive_all,
    refusing,
    running,
    unanswering,
)

pytestmark = pytest.mark.both_loops


async def test_bytes_go_both_ways_and_the_session_is_counted_once() -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        with rig.connect() as client:
            await loop.sock_sendall(client, b"hello")
            assert await receive(loop, client, 6) == b"ahello"
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b""
        [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.sent_bytes, ended.received_bytes) == (EndReason.CLIENT_EOF, 5, 6)
        assert (rig.listener.accepted, rig.listener.active, ended.attempts) == (1, 0, 1)
        assert rig.route.ended[EndReason.CLIENT_EOF] == 1
        [endpoint] = rig.pool.endpoints()
        assert (endpoint.total, endpoint.active) == (1, 0)


async def test_equal_endpoints_share_equally() -> None:
    """L1, with 100 connections; the 1,000 of the interface are in the end-to-end tests."""
    loop = asyncio.get_running_loop()
    async with peers(b"a", b"b", b"c", b"d") as up, running() as rig:
        rig.start([address_of(each.listening) for each in up.values()])
        for _ in range(100):
            with rig.connect() as client:
                client.shutdown(socket.SHUT_WR)
                await receive_all(loop, client)
        assert [each.accepted for each in up.values()] == [25, 25, 25, 25]
        await rig.until_ended(100)


async def test_a_refused_dial_goes_to_another_endpoint_and_the_client_sees_nothing_of_it() -> None:
    """D1."""
    loop = asyncio.get_running_loop()
    async with peers(b"ok") as up, running() as rig:
        with refusing() as gone:
            rig.start([gone, address_of(up[b"ok"].listening)])
            with rig.connect() as client:
                client.shutdown(socket.SHUT_WR)
                assert await receive_all(loop, client) == b"ok"
            [ended] = await rig.until_ended(1)
        assert ended.attempts == 2
        assert rig.pool.endpoints()[0].connect_failures == {ConnectFailure.REFUSED: 1}
        assert rig.pool.endpoints()[0].failure_streak == 1


@pytest.mark.parametrize(("on_failure", "reset"), [("reset", True), ("close", False)])
async def test_when_all_refuse_the_client_is_told_as_configured(on_failure: str, reset: bool) -> None:
    """D2."""
    loop = asyncio.get_running_loop()
    async with running() as rig:
        with refusing() as one, refusing() as two:
            options = ListenerOptions("in", (), "up", on_failure=on_failure)  # type: ignore[arg-type]
            rig.start([one, two], options, ConnectOptions(attempts=2))
            told = pytest.raises(ConnectionResetError) if reset else contextlib.nullcontext()
            with rig.connect() as client, told:
                assert await receive_all(loop, client) == b""
            [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.phase, ended.attempts) == (EndReason.CONNECT_REFUSED, Phase.CONNECT, 2)
        assert [sum(e.connect_failures.values()) for e in rig.pool.endpoints()] == [1, 1]


async def test_no_endpoint_is_tried_twice_while_others_are_left() -> None:
    loop = asyncio.get_running_loop()
    async with running() as rig:
        with refusing() as one, refusing() as two, refusing() as three:
            rig.start([one, two, three], connect=ConnectOptions(attempts=3))
            with rig.connect() as client, contextlib.suppress(ConnectionResetError):
                await receive_all(loop, client)
            await rig.until_ended(1)
        assert [e.connect_failures for e in rig.pool.endpoints()] == [{ConnectFailure.REFUSED: 1}] * 3


async def test_a_single_endpoint_that_comes_back_within_the_pause_serves_the_client() -> None:
    loop = asyncio.get_running_loop()
    async with running() as rig:
        with refusing() as address:
            rig.start([address], connect=ConnectOptions(attempts=100, budget_s=50))
            client = rig.connect()
            async with asyncio.timeout(WITHIN_S):
                while not rig.pool.endpoints()[0].failure_streak:  # noqa: ASYNC110 - the pool tells nobody
                    await asyncio.sleep(0)
        with listening_socket(address) as upstream, client:
            server, _ = await loop.sock_accept(upstream)
            with server:
                await loop.sock_sendall(server, b"back")
            assert await receive(loop, client, 4) == b"back"
            client.shutdown(socket.SHUT_WR)
        [ended] = await rig.until_ended(1)
        assert ended.attempts >= 2
        assert rig.pool.endpoints()[0].failure_streak == 0


async def test_who_pauses_between_two_dials_is_counted_and_leaves_when_reset_or_drained() -> None:
    connect = ConnectOptions(attempts=100, budget_s=60)
    async with running() as rig:
        with refusing() as address:
            rig.start([address], connect=connect)
            for by_client in (True, False):
                client = rig.connect()
                async with asyncio.timeout(WITHIN_S):
                    while not rig.pool.waiting:  # noqa: ASYNC110 - the pool tells nobody
                        await asyncio.sleep(0)
                [session] = rig.dialer.sessions
                assert (session.state, rig.pool.waiting) == (State.WAITING, 1)
                if by_client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                else:
                    rig.dialer.abort(session, EndReason.DRAINED, reset=False)
                client.close()
                await rig.until_ended(2 - by_client)
                assert rig.pool.waiting == 0
        assert [(each.reason, each.phase, each.errno) for each in rig.ended] == [
            (EndReason.CLIENT_GONE, Phase.WAIT, errno.ECONNRESET),
            (EndReason.DRAINED, Phase.WAIT, 0),
        ]


async def test_the_budget_ends_a_session_whose_only_endpoint_keeps_refusing() -> None:
    loop = asyncio.get_running_loop()
    async with running() as rig:
        with refusing() as address:
            rig.start([address], connect=ConnectOptions(attempts=100, budget_s=0.3))
            began = loop.time()
            with rig.connect() as client, pytest.raises(ConnectionResetError):
                await receive_all(loop, client)
            [ended] = await rig.until_ended(1)
        assert ended.reason is EndReason.CONNECT_BUDGET
        assert loop.time() - began < 20  # where a hundred attempts have as many pauses


async def test_an_endpoint_that_does_not_answer_costs_one_connect_timeout() -> None:
    """D3."""
    loop = asyncio.get_running_loop()
    async with peers(b"ok") as up, running() as rig:
        with unanswering() as hole:
            members = [hole, address_of(up[b"ok"].listening)]
            rig.start(members, connect=ConnectOptions(timeout_s=0.2))
            with rig.connect() as client:
                client.shutdown(socket.SHUT_WR)
                assert await receive_all(loop, client) == b"ok"
            [ended] = await rig.until_ended(1)
        assert ended.attempts == 2
        assert rig.pool.endpoints()[0].connect_failures == {ConnectFailure.TIMEOUT: 1}


async def test_without_an_endpoint_the_client_is_closed_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with running() as rig:
        rig.start([])
        with rig.connect() as client, pytest.raises(ConnectionResetError):
            await receive_all(loop, client)
        [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.phase, ended.attempts) == (EndReason.NO_ENDPOINT, Phase.ROUTE, 0)


async def test_when_every_endpoint_is_full_the_client_is_turned_away_and_counted() -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([Member(address_of(up[b"a"].listening), max_connections=1)])
        with rig.connect() as first:
            assert await receive(loop, first, 1) == b"a"
            with rig.connect() as second, pytest.raises(ConnectionResetError):
                await receive_all(loop, second)
        await rig.until_ended(2)
        assert rig.listener.rejected[Rejection.FULL] == 1
        assert rig.route.ended[EndReason.FULL] == 1


async def test_a_local_failure_is_told_and_never_held_against_the_endpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A source address that this machine does not have: no packet leaves."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)], connect=ConnectOptions(source="192.0.2.1", attempts=1))
        with rig.connect() as client, pytest.raises(ConnectionResetError):
            await receive_all(loop, client)
        [ended] = await rig.until_ended(1)
        assert (ended.reason, ended.errno) == (EndReason.INTERNAL_ERROR, errno.EADDRNOTAVAIL)
        assert "cannot make a socket to dial from: [Errno 99]" in caplog.text
        [endpoint] = rig.pool.endpoints()
        assert (endpoint.failure_streak, endpoint.connect_failures) == (0, {ConnectFailure.LOCAL: 1})
        assert up[b"a"].accepted == 0


async def test_an_endpoint_of_another_family_than_the_source_address_gives_way_to_one_of_its_own() -> None:
    """As behind a host name with A and AAAA records."""
    loop = asyncio.get_running_loop()
    async with peers(b"ok") as up, running() as rig:
        members = [ip_address("::1", 9), address_of(up[b"ok"].listening)]
        rig.start(members, connect=ConnectOptions(source="127.0.0.1"))
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"ok"
        [ended] = await rig.until_ended(1)
        assert ended.attempts == 2
        assert rig.pool.endpoints()[0].connect_failures == {ConnectFailure.LOCAL: 1}
        assert rig.pool.endpoints()[0].failure_streak == 0


async def test_an_ipv6_zone_whose_interface_is_gone_is_an_endpoint_out_of_reach() -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"ok") as up, running() as rig:
        rig.start([ip_address("fe80::1%nowhere0", 80), address_of(up[b"ok"].listening)])
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"ok"
        [ended] = await rig.until_ended(1)
        assert ended.attempts == 2
        assert rig.pool.endpoints()[0].connect_failures == {ConnectFailure.UNREACHABLE: 1}


async def test_an_endpoint_that_takes_a_forgotten_one_s_counter_slot_is_dialled_itself() -> None:
    """What is prepared for an endpoint is found by its slot."""
    loop = asyncio.get_running_loop()
    async with peers(b"old", b"new") as up, running() as rig:
        rig.start([address_of(up[b"old"].listening)])
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"old"
        await rig.until_ended(1)
        [old] = rig.pool.endpoints()
        slot = old.slot
        rig.apply(rig.pool.apply_membership(Membership(()), loop.time()))
        rig.apply(rig.pool.advance(loop.time() + 3600)[0])
        members = Membership((Member(address_of(up[b"new"].listening)),))
        rig.apply(rig.pool.apply_membership(members, loop.time()))
        assert [each.slot for each in rig.pool.endpoints()] == [slot]
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"new"
        await rig.until_ended(2)
        assert rig.relay.read_slot(slot).received_bytes == 3


async def test_dials_follow_the_options_of_a_reload() -> None:
    loop = asyncio.get_running_loop()
    sources = [None, "127.0.0.2", "127.0.0.3", None]
    async with running() as rig:
        with listening_socket() as listening:
            rig.start([address_of(listening)])
            for source in sources:
                rig.route.configure(Timeouts(), TcpOptions(), ConnectOptions(source=source))
                with rig.connect():
                    upstream, (host, _) = await loop.sock_accept(listening)
                    upstream.close()
                assert host == (source or "127.0.0.1")
            await rig.until_ended(len(sources))
