"""Conformance L1, L2, L3, L5, L6, L10: who gets how many connections, and what an operator's orders change."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from tests.accepting import accept
from tests.e2e.conftest import Start
from tests.e2e.peers import (
    Address,
    Talk,
    Upstream,
    connect,
    dial,
    echo,
    exchange,
    hold,
    hold_one,
    listen,
    receive,
    until,
    upstreams,
)
from tests.e2e.peers import accept as accept_by
from tests.e2e.program import config
from tests.patience import WITHIN_S

CLIENTS = 20


async def connections(address: Address, number: int, request: bytes = b"x") -> None:
    """Make that many short connections, some of them at a time."""
    left = iter(range(number))

    async def client() -> None:
        for _ in left:
            assert await exchange(address, request) == request

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client(), name="client")


class Quick:
    """An upstream that answers at once, and by whose answers slow ones reckon. Once `over` they need not wait any more."""

    def __init__(self) -> None:
        self.answers = 0
        self.over = False
        self._news = asyncio.Event()

    async def talk(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(client, 65536):
            await loop.sock_sendall(client, data)
            self.answers += 1
            self._tell()

    def slow(self, times: int) -> Talk:
        """An upstream that needs as long for an answer as the quick one for so many."""

        async def talk(client: socket.socket) -> None:
            loop = asyncio.get_running_loop()
            while data := await loop.sock_recv(client, 65536):
                due = self.answers + times
                while self.answers < due and not self.over:
                    await self._news.wait()
                await loop.sock_sendall(client, data)

        return talk

    def end(self) -> None:
        self.over = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def accepted(ups: list[Upstream]) -> list[int]:
    return [up.accepted for up in ups]


@pytest.mark.parametrize("event_loop", ["auto", "asyncio"])
async def test_equal_endpoints_get_equally_many(start: Start, event_loop: str) -> None:
    """L1: 1,000 connections over four endpoints, 250 each"""
    async with upstreams(echo, echo, echo, echo) as ups:
        lb = start(config([up.port for up in ups], more=f"runtime: {{event_loop: {event_loop}}}"))
        await connections(lb.address(), 1000)
        assert accepted(ups) == [250] * 4
        await until(lambda: [lb.endpoints()[up.port]["total"] for up in ups] == [250] * 4)


async def test_weights_are_kept_within_a_hundredth(start: Start) -> None:
    """L2: weights 5:1:1, 700 connections"""
    async with upstreams(echo, echo, echo) as ups:
        weighted = [
            f"address: '127.0.0.1:{up.port}', weight: {w}" for up, w in zip(ups, (5, 1, 1), strict=True)
        ]
        lb = start(config(weighted))
        await connections(lb.address(), 700)
        assert accepted(ups) == pytest.approx([500, 100, 100], abs=7)


async def test_least_connection_spares_the_slow_one(start: Start) -> None:
    """L3: an endpoint that takes 500 ms beside one that takes 20 ms, 8 clients: the slow one gets under a quarter. (25 times as long, by
    the quick one's answers: milliseconds depend on who else is busy.)"""
    reckoned = Quick()
    async with upstreams(reckoned.slow(25), reckoned.talk) as (slow, quick):
        lb = start(config([slow.port, quick.port], upstream="strategy: least_connection"))
        address, left = lb.address(), iter(range(120))

        async def client() -> None:
            for _ in left:
                await exchange(address)
            reckoned.end()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client(), name="client")
        assert 0 < slow.accepted < 30
        assert slow.accepted + quick.accepted == 120


async def test_backup_serves_only_while_no_primary_is_left(start: Start) -> None:
    """L10"""
    async with upstreams(echo, echo, echo) as ups:
        first, second, _ = ups
        tiers = [
            f"address: '127.0.0.1:{up.port}', priority: {tier}"
            for up, tier in zip(ups, (0, 0, 1), strict=True)
        ]
        lb = start(config(tiers))
        await connections(lb.address(), 20)
        lb.order("up", first.port, "drain")
        await connections(lb.address(), 20)
        assert accepted(ups) == [10, 30, 0]
        lb.order("up", second.port, "drain")
        await connections(lb.address(), 20)
        assert accepted(ups) == [10, 30, 20]
        lb.order("up", first.port, "undrain")
        await connections(lb.address(), 20)
        assert accepted(ups) == [30, 30, 20]


async def test_primary_that_refuses_is_left_for_the_backup_and_comes_back(start: Start) -> None:
    """L10 and D1: the client sees no error, the second dial is counted"""
    async with upstreams(echo) as (backup,):
        with socket.socket() as primary:
            primary.bind(("127.0.0.1", 0))
            port = primary.getsockname()[1]
            tiers = [f"address: '127.0.0.1:{port}'", f"address: '127.0.0.1:{backup.port}', priority: 1"]
            lb = start(config(tiers))
            await connections(lb.address(), 20)
            assert backup.accepted == 20
            refused = lb.total("lbproxy_endpoint_connect_failures_total", reason="refused")
            assert refused >= 1
            assert lb.total("lbproxy_session_connect_attempts_total") == 20 + refused
            primary.listen()
            primary.setblocking(False)
            with await dial(lb.address()):
                async with asyncio.timeout(WITHIN_S):
                    accepted_again = await accept(primary)
                accepted_again.close()
            assert backup.accepted == 20


async def test_drained_endpoint_gets_no_new_connection_and_keeps_the_old(start: Start) -> None:
    """L5; a drain survives a reload, and ends with undrain"""
    async with upstreams(hold, hold) as (left, right):
        lb = start(config([left.port, right.port]))
        old = [await hold_one(lb.address()) for _ in range(4)]
        assert accepted([left, right]) == [2, 2]
        answer = lb.order("up", left.port, "drain")
        assert (answer["eligible"], answer["ineligible"], answer["active"]) == (False, ["drained"], 2)
        for reloaded in (False, True):
            if reloaded:
                lb.write(config([right.port, left.port]))
                assert lb.post("/api/v1/reload")["result"] == "applied"
            for _ in range(5):
                (await hold_one(lb.address())).close()
        assert accepted([left, right]) == [2, 12]
        assert left.open == 2
        lb.order("up", left.port, "undrain")
        new = [await hold_one(lb.address()) for _ in range(4)]
        assert accepted([left, right]) == [4, 14]
        for client in old + new:
            client.close()


def test_endpoint_that_goes_down_keeps_the_sessions_it_has(start: Start) -> None:
    """L6, the default: what it refuses from now on goes elsewhere"""
    (going, going_port), (staying, staying_port) = listen(), listen()
    with going, staying, ExitStack() as open_:
        lb = start(config([going_port, staying_port]))
        client, upstream = open_.enter_context(connect(lb.address())), open_.enter_context(accept_by(going))
        going.close()
        for _ in range(4):
            with connect(lb.address()) as other, accept_by(staying) as elsewhere:
                elsewhere.sendall(b"!")
                assert other.recv(1) == b"!"
        for receiver, sender in ((client, upstream), (upstream, client)):
            sender.sendall(b"still here")
            assert receiver.recv(10, socket.MSG_WAITALL) == b"still here"
        assert lb.endpoints()[going_port]["active"] == 1
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="refused") >= 1


async def test_drain_with_a_deadline_closes_what_is_left(start: Start) -> None:
    """L5"""
    async with upstreams(hold, hold) as (left, right):
        lb = start(config([left.port, right.port]))
        clients = [await hold_one(lb.address()) for _ in range(4)]
        lb.order("up", left.port, "drain", deadline_s=0.3)
        assert left.open == 2
        ended = [asyncio.get_running_loop().sock_recv(client, 1) for client in clients]
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(each, name="read") for each in ended]
            await until(lambda: sum(read.done() for read in reads) == 2)
            assert [read.result() for read in reads if read.done()] == [b"", b""]
            await until(lambda: left.open == 0)
            assert right.open == 2
            for read in reads:
                read.cancel()
        for client in clients:
            client.close()
        await until(lambda: len(lb.ended()) == 4)
        reasons = sorted(line["reason"] for line in lb.ended())
        assert reasons.count("drained") == 2


async def test_weight_by_api_is_kept_until_auto(start: Start) -> None:
    """What the API set stands above the file and survives a reload; 0 takes an endpoint out; `auto` lifts it"""
    async with upstreams(echo, echo) as (one, two):
        lb = start(config([one.port, two.port]))

        async def shares() -> tuple[int, int]:
            before = accepted([one, two])
            await connections(lb.address(), 40)
            now = accepted([one, two])
            return now[0] - before[0], now[1] - before[1]

        assert lb.order("up", one.port, "weight", weight=3)["weight_override"] == 3
        assert await shares() == (30, 10)
        lb.write(config([f"address: '127.0.0.1:{one.port}', weight: 7", two.port]))
        lb.post("/api/v1/reload")
        assert await shares() == (30, 10)
        lb.order("up", one.port, "weight", weight=0)
        assert await shares() == (0, 40)
        back = lb.order("up", one.port, "weight", weight="auto")
        assert (back["weight"], back["weight_override"]) == (7, None)
        assert await shares() == (35, 5)


async def test_whole_upstream_drained_refuses_until_undrained(start: Start) -> None:
    async with upstreams(hold) as (up,):
        lb = start(config([up.port]))
        with await hold_one(lb.address()):
            lb.post("/api/v1/upstreams/up/drain")
            assert not lb.ready()
            # The RST may come before the connect has returned.
            with pytest.raises(ConnectionResetError):  # noqa: SIM117 - the dial itself may raise it
                with await dial(lb.address()) as client:
                    await receive(client)
            assert up.open == 1
            lb.post("/api/v1/upstreams/up/undrain")
            assert lb.ready()
            (await hold_one(lb.address())).close()
        await until(lambda: [line["reason"] for line in lb.ended()].count("no_endpoint") == 1)
