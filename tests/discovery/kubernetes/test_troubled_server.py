"""The registry against an API server in trouble."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from lbproxy.discovery.kubernetes import registry as registries
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.secrets import Secret
from tests.discovery.kubernetes.api_server import (
    api_server,
    refusal,
    slice_of,
    stream_of,
)
from tests.discovery.kubernetes.following import following, hosts


async def test_a_stream_cut_in_the_middle_of_a_line_goes_on_where_it_was() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server) as registry:
            await registry.next()
            told = slice_of("web-b", "10.0.0.2")
            told["metadata"]["resourceVersion"] = "102"
            line = json.dumps({"type": "ADDED", "object": told}).encode() + b"\n"

            async def cut(request: web.Request) -> web.StreamResponse:
                server.disturb = None
                return await stream_of(request, line, line[:50], cut=True)

            server.disturb = cut
            assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
            assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
            assert server.asked[-1]["resourceVersion"] == "102"


async def test_a_watch_that_ends_at_once_and_empty_is_an_error() -> None:
    async with api_server() as server, following(server) as registry:
        await registry.next()

        async def nothing(request: web.Request) -> web.StreamResponse | None:
            return await stream_of(request) if "watch" in request.query else None

        server.disturb = nothing
        with pytest.raises(RegistryError, match="brought nothing"):
            await registry.next()
        server.disturb = None
        assert (await registry.next()).consistent


async def test_a_connection_that_died_without_a_word_is_noticed() -> None:
    async with api_server() as server, following(server, watch_s=1.0, timeout_s=0.6) as registry:
        await registry.next()
        stuck = asyncio.Event()

        async def silent(request: web.Request) -> web.StreamResponse:
            response = await stream_of(request)
            await response.write(b"\n")
            await stuck.wait()
            return response

        server.disturb = silent
        with pytest.raises(RegistryError, match="has not ended in time"):
            await registry.next()
        stuck.set()


GARBAGE: list[tuple[Any, str]] = [
    (b"<html>", "no JSON"),
    (b"[]", "no object"),
    (b'{"kind": "EndpointSliceList"}', "no EndpointSliceList"),
    (b'{"metadata": {"resourceVersion": "1"}}', "no EndpointSliceList"),
    (b'{"metadata": {}, "items": []}', "resourceVersion"),
    (b'{"metadata": {"resourceVersion": "1"}, "items": [{}]}', "without a name"),
    (b'{"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "a"}}]}', "addressType"),
    (b'{"metadata": {"resourceVersion": "1"}, "items"', "no JSON"),
]


@pytest.mark.parametrize(("body", "said"), GARBAGE)
async def test_a_list_that_is_none_is_an_error_and_no_empty_answer(body: bytes, said: str) -> None:
    async with api_server() as server:

        async def garbage(request: web.Request) -> web.Response:
            return web.Response(body=body)

        server.disturb = garbage
        async with following(server) as registry:
            for ask in (registry.next, registry.confirm):
                with pytest.raises(RegistryError, match=said):
                    await ask()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"<html>\n", "no JSON"),
        (b"[]\n", "no event"),
        (b'{"type": "ADDED", "object": {}}\n', "without a name"),
        (b'{"type": "EXPLODED", "object": {"metadata": {"resourceVersion": "9"}}}\n', "EXPLODED"),
        (b'{"type": "BOOKMARK", "object": {"metadata": {}}}\n', "resourceVersion"),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}\n', "etcd is away"),
    ],
)
async def test_an_event_that_is_none_is_an_error_and_everything_is_listed_again(
    line: bytes, said: str
) -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server) as registry:
            await registry.next()

            async def garbage(request: web.Request) -> web.StreamResponse:
                return await stream_of(request, line)

            server.disturb = garbage
            with pytest.raises(RegistryError, match=said) as caught:
                await registry.next()
            assert caught.value.listed
            server.disturb = None
            assert (await registry.next()).consistent


async def test_a_busy_server_says_how_long_to_leave_it_alone() -> None:
    async with api_server() as server:

        async def busy(request: web.Request) -> web.Response:
            return refusal(429, "TooManyRequests", "too many requests", **{"Retry-After": "7"})

        server.disturb = busy
        async with following(server) as registry:
            with pytest.raises(RegistryError, match="429") as caught:
                await registry.next()
            assert (caught.value.retry_after_s, caught.value.listed) == (7.0, False)


@pytest.mark.parametrize("trickle", [False, True])
async def test_a_slow_server_is_an_error_within_the_time_out(trickle: bool) -> None:
    async with api_server() as server:
        end = asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            if trickle:
                await response.prepare(request)
                await response.write(b"{")
            await end.wait()
            return response

        server.disturb = slow
        async with following(server, timeout_s=0.2) as registry:
            for ask in (registry.next, registry.confirm):
                with pytest.raises(RegistryError, match=r"no full answer within 0\.2 s"):
                    await ask()
        end.set()


async def test_lists_that_are_too_old_again_and_again_are_an_error() -> None:
    async with api_server() as server, following(server) as registry:

        async def gone(request: web.Request) -> web.StreamResponse | None:
            return refusal(410, "Expired", "too old") if "watch" in request.query else None

        server.disturb = gone
        for _ in range(registries.GONE):
            assert (await registry.next()).consistent
        with pytest.raises(RegistryError, match="too old for a watch"):
            await registry.next()
        assert (await registry.next()).consistent


@pytest.mark.parametrize("token", ["a\nb", "é", "a\0b"])
async def test_a_token_that_is_none_is_an_error(token: str) -> None:
    async with api_server() as server, following(server, token=Secret(value=token)) as registry:
        with pytest.raises(RegistryError, match="token"):
            await registry.next()
