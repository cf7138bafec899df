"""Conformance K1, K2: a reload is a difference within the running process, and nobody who does not have to notices."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import dial, echo, exchange, hold_one, receive, until, upstreams
from tests.e2e.peers import hold as holding
from tests.e2e.program import Json, Program, config
from tests.relay.scale import scaled

RELOADS = scaled(200, 20)
CONNECTIONS_A_SECOND = 300


async def ask_to_reload(lb: Program) -> tuple[int, Json]:
    """`POST /api/v1/reload` beside whatever else the test's loop does."""
    host, _, port = lb.admin.rpartition(":")
    client = await dial((host, int(port)))
    with client:
        request = f"POST /api/v1/reload HTTP/1.1\r\nHost: {lb.admin}\r\nConnection: close\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, request.encode())
        answer = b""
        while part := await receive(client):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def configurations(ports: list[int]) -> Iterator[tuple[str, bool]]:
    """One after the other: endpoints come and go, weights, limits, a second listener; every seventh is invalid."""
    for number in range(RELOADS):
        if number % 7 == 6:
            yield config(ports, listener="upstrem: nix"), False
        else:
            members = [
                f"address: '127.0.0.1:{port}', weight: {1 + (number + port) % 3}"
                for place, port in enumerate(ports)
                if place != number % 4  # each leaves for one reload in four
            ]
            limits = f"max_connections: {5000 + number}, timeouts: {{idle: {number + 10}s}}"
            strategy = ("round_robin", "least_connection", "random")[number % 3]
            text = config(members, listener=limits, upstream=f"strategy: {strategy}")
            if number % 2:
                text = text.replace("listeners: {", "listeners: {more: {bind: '127.0.0.1:0', upstream: up}, ")
            yield text, True


@pytest.mark.timeout(600)
async def test_no_connection_is_refused_or_reset_by_reloads(start: Start) -> None:
    """K1, K2: reloads one after the other, every seventh invalid, under 300 new connections a second"""
    async with upstreams(echo, echo, echo) as ups:
        ports = [up.port for up in ups]
        lb = start(config(ports))
        address = lb.address()
        old = [await dial(address) for _ in range(10)]
        done, over = 0, asyncio.Event()

        async def client() -> None:
            nonlocal done
            assert await exchange(address, b"request") == b"request"
            done += 1

        async def load(group: asyncio.TaskGroup) -> None:
            loop = asyncio.get_running_loop()
            began, count = loop.time(), 0
            while not over.is_set():
                count += 1
                group.create_task(client(), name="client")
                # The pace is the subject here: so many a second, also after a turn that took long.
                await asyncio.sleep(max(0.0, began + count / CONNECTIONS_A_SECOND - loop.time()))

        async with asyncio.TaskGroup() as group:
            group.create_task(load(group), name="load")
            for text, valid in configurations(ports):
                lb.write(text)
                before = done
                status, answer = await ask_to_reload(lb)
                assert (status == 200) is valid, answer
                assert answer.get("result", "invalid") == ("applied" if valid else "invalid")
                await until(lambda: done >= before + 20)  # noqa: B023  asked at once
            over.set()
        assert done >= RELOADS * 20
        for client_before in old:
            await asyncio.get_running_loop().sock_sendall(client_before, b"still here")
            assert await receive(client_before) == b"still here"
            client_before.close()
        invalid = RELOADS // 7
        assert lb.total("lbproxy_config_reloads_total", result="invalid") == invalid
        assert lb.total("lbproxy_config_reloads_total", result="applied") == RELOADS - invalid
        await until(lambda: len(lb.ended()) == done + len(old))
        assert {line["reason"] for line in lb.ended()} == {"client_eof"}


async def test_counters_position_and_sessions_survive(start: Start) -> None:
    async with upstreams(holding, holding, holding) as ups:
        lb = start(config([up.port for up in ups]))
        clients = [await hold_one(lb.address())]
        for number in range(1, 9):
            lb.write(config([up.port for up in ups], listener=f"max_connections: {100 + number}"))
            answer = lb.post("/api/v1/reload")
            assert answer["changes"] == ["listener in: max_connections changed"]
            clients.append(await hold_one(lb.address()))
            # One each in turn, as if there had been no reload in between.
            assert max(up.accepted for up in ups) - min(up.accepted for up in ups) <= 1
        assert [up.open for up in ups] == [3, 3, 3]
        assert lb.total("lbproxy_listener_connections_total", listener="in") == 9
        # That an upstream was reached is told a moment after its client had the first byte.
        await until(lambda: lb.total("lbproxy_endpoint_connections_total") == 9)
        for client in clients:
            client.close()


async def test_reload_without_a_change_says_so(start: Start) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        assert lb.post("/api/v1/reload") == {"result": "unchanged", "changes": [], "restart_needed": []}
        lb.signal(signal.SIGHUP)
        await until(lambda: lb.total("lbproxy_config_reloads_total", result="unchanged") == 2)


async def test_keys_that_need_a_restart_are_named_and_left_alone(start: Start) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        more = "admin: {bind: '127.0.0.1:1'}\nruntime: {drain_timeout: 5s}\n"
        lb.write(config([up.port], more=more))
        answer = lb.post("/api/v1/reload")
        assert set(answer["restart_needed"]) == {"admin.bind", "runtime.drain_timeout"}
        assert lb.ready()


async def test_removed_listener_refuses_and_its_sessions_stay(start: Start) -> None:
    async with upstreams(echo) as (up,):
        both = (
            "admin: {bind: '127.0.0.1:0'}\nlisteners:\n"
            "  in: {bind: '127.0.0.1:0', upstream: up}\n"
            "  gone: {bind: '127.0.0.1:0', upstream: up}\n"
            f"upstreams: {{up: {{endpoints: ['127.0.0.1:{up.port}']}}}}\n"
        )
        lb = start(both)
        kept, gone = lb.address("in"), lb.address("gone")
        with await dial(gone) as client:
            await until(lambda: up.open == 1)
            lb.write(config([up.port]))
            assert lb.post("/api/v1/reload")["changes"] == ["listener gone: removed"]
            with pytest.raises(ConnectionRefusedError):
                await dial(gone)
            assert await exchange(kept) == b"x"
            await asyncio.get_running_loop().sock_sendall(client, b"still here")
            assert await receive(client) == b"still here"
            states = {one["name"]: one["state"] for one in lb.get("/api/v1/listeners")["items"]}
            assert states == {"in": "accepting", "gone": "draining"}
        await until(lambda: up.open == 0)
        await until(lambda: lb.active() == 0)
        # With its last session it leaves the lists and the metrics, without a further reload.
        await until(lambda: [one["name"] for one in lb.get("/api/v1/listeners")["items"]] == ["in"])
        assert not [labels for name, labels in lb.metrics() if ("listener", "gone") in labels]


async def test_new_bind_that_is_taken_changes_nothing(start: Start) -> None:
    """All new addresses are tried before anything is applied"""
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = config([up.port], listener="max_connections: 7")
            lb.write(
                text.replace(
                    "listeners: {", f"listeners: {{more: {{bind: '127.0.0.1:{port}', upstream: up}}, "
                )
            )
            status, answer = await ask_to_reload(lb)
        assert 400 <= status < 500
        assert any(f"listener more: cannot bind 127.0.0.1:{port}" in line for line in answer["errors"])
        (still,) = lb.get("/api/v1/listeners")["items"]
        assert still["max_connections"] != 7
        assert await exchange(lb.address()) == b"x"
        assert lb.total("lbproxy_config_reloads_total", result="failed") == 1
