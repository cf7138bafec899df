"""EndpointSlices followed by the program, with 300 new connections a second: none fails, whatever the API server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from tests.discovery.kubernetes.api_server import (
    ApiServer,
    api_server,
    endpoint,
    refusal,
    slice_of,
    stream_of,
)
from tests.e2e.conftest import Start
from tests.e2e.peers import Upstream, echo, until, upstreams
from tests.e2e.program import Program
from tests.e2e.traffic import RATE, Traffic, flowing

TROUBLE_S: Final = 2.0
RECOVERS_WITHIN_S: Final = 120.0

pytestmark = pytest.mark.slow


def slice_at(up: Upstream, **more: Any) -> dict[str, Any]:
    """A slice with the one endpoint that is `up`."""
    ports = [{"name": "http", "port": up.port, "protocol": "TCP"}]
    return slice_of(f"web-{up.port}", endpoint("127.0.0.1", **more), ports=ports)


def config(server: ApiServer, more: str = "") -> str:
    return (
        "admin: {bind: '127.0.0.1:0'}\n"
        "log: {format: json, access: {enabled: false}}\n"
        "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
        "upstreams: {up: {discovery: "
        f"{{type: kubernetes, address: '{server.url}', namespace: shop, service: web, timeout: 1s{more}}}}}}}\n"
    )


def source(running: Program) -> dict[str, Any]:
    return dict(running.get("/api/v1/upstreams/up")["sources"][0])


async def asked(
    running: Program, condition: Callable[[], object], within_s: float = RECOVERS_WITHIN_S
) -> None:
    """Wait for what the program says; the API server lives on this loop, so it is asked in a thread."""
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  another process raises no event here
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(
    start: Start, server: ApiServer, ups: list[Upstream], more: str = ""
) -> AsyncIterator[tuple[Program, Traffic]]:
    """The program with traffic through it, once it knows all upstreams but the last; at the end nothing has failed, and the last one,
    which appears now, gets connections."""
    for up in ups[:-1]:
        await server.put(slice_at(up))
    running = await asyncio.to_thread(start, config(server, more))
    known = {each.port for each in ups[:-1]}
    await asked(running, lambda: known <= set(running.endpoints()))
    async with flowing(running) as traffic:
        yield running, traffic
        await server.put(slice_at(ups[-1]))
        await until(lambda: ups[-1].accepted, within_s=RECOVERS_WITHIN_S)
    assert traffic.failures == []
    assert traffic.fewest == len(known)
    assert traffic.done > RATE / 3


async def test_endpoints_come_drain_and_go(start: Start) -> None:
    async with api_server() as server, upstreams(*[echo] * 4) as ups:
        for up in ups:
            await server.put(slice_at(up))
        running = await asyncio.to_thread(start, config(server))
        await asked(running, lambda: set(running.endpoints()) == {up.port for up in ups})
        leaving = {"ready": False, "serving": True, "terminating": True}
        await server.put(slice_at(ups[0], conditions=leaving))
        await asked(running, lambda: running.endpoints()[ups[0].port]["weight"] == 0)
        await server.delete(f"web-{ups[0].port}")
        await asked(running, lambda: "removed" in running.endpoints()[ups[0].port]["ineligible"])
        found = await asyncio.to_thread(running.endpoints)
        assert found[ups[1].port]["metadata"] == {
            "kubernetes-node": "node-1",
            "kubernetes-pod": "web-127-0-0-1",
        }
        assert found[ups[1].port]["zone"] == "eu-1a"


async def broken(server: ApiServer, request: web.Request) -> web.StreamResponse:
    return refusal(500, "InternalError", "etcdserver: leader changed")


async def expired(server: ApiServer, request: web.Request) -> web.StreamResponse:
    return refusal(410, "Expired", "too old resource version")


async def garbage(server: ApiServer, request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>502</html>")


async def half(server: ApiServer, request: web.Request) -> web.StreamResponse:
    return await stream_of(request, b'{"kind": "EndpointSliceList", "items": [', cut=True)


async def silent(server: ApiServer, request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


Trouble = Callable[[ApiServer, web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize("trouble", [broken, expired, garbage, half, silent])
async def test_what_is_no_answer_changes_nothing(start: Start, trouble: Trouble) -> None:
    async with (
        api_server() as server,
        upstreams(*[echo] * 5) as ups,
        served(start, server, ups) as (running, _),
    ):

        async def disturb(request: web.Request) -> web.StreamResponse:
            return await trouble(server, request)

        server.disturb = disturb
        await server.cut()
        await asked(running, lambda: source(running)["error"])
        await asyncio.sleep(TROUBLE_S)
        server.disturb = None


async def test_a_token_that_expired_is_replaced(start: Start, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    async with api_server() as server, upstreams(*[echo] * 5) as ups:
        server.tokens = {"one"}
        async with served(start, server, ups, f", token: {{file: '{token}'}}") as (running, _):
            server.tokens = {"two-rotated"}
            await server.cut()
            await asked(running, lambda: "401" in source(running)["error"])
            await asyncio.sleep(TROUBLE_S)
            token.write_text("two-rotated")


async def test_a_cluster_set_back_to_nothing_is_held(start: Start) -> None:
    async with (
        api_server() as server,
        upstreams(*[echo] * 5) as ups,
        served(start, server, ups) as (running, _),
    ):
        server.restore(7)
        await server.cut()
        await asked(running, lambda: source(running)["held"] == 4)
        await asyncio.sleep(TROUBLE_S)
        for up in ups[:-1]:
            await server.put(slice_at(up))
        await asked(running, lambda: source(running)["held"] == 0)
