"""Reading JSON from HTTP: bounded, whole or not at all, without a long step on the loop."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.errors import RegistryError, ResolveError
from lbproxy.wire.http import HttpClient, read_json, went_wrong
from lbproxy.wire.resolver import Resolution

pytestmark = pytest.mark.asyncio


class Pieces:
    """A body as aiohttp's reader gives it, in the pieces that the network made."""

    def __init__(self, *pieces: bytes) -> None:
        self.content = self
        self._pieces = pieces

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def body(*pieces: bytes) -> Any:
    return Pieces(*pieces)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(VALUES, max_size=8), st.integers(1, 7), st.sampled_from([None, 2]))
async def test_a_body_is_what_the_parser_says_however_it_arrives(
    items: list[Any], size: int, indent: int | None
) -> None:
    text = json.dumps(items, indent=indent).encode()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert await read_json(body(*pieces)) == items


@pytest.mark.parametrize(
    "text", [b"", b" ", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1]]", b"[1] x", b"\xff", b"[" * 100_000]
)  # fmt: skip
async def test_what_is_no_whole_json_is_an_error(text: bytes) -> None:
    with pytest.raises(RegistryError):
        await read_json(body(text))


async def test_a_body_beyond_the_limit_is_an_error() -> None:
    with pytest.raises(RegistryError, match="more than 10 bytes"):
        await read_json(body(b"[1,", b"2,3,4,5,6,7]"), 10)


async def test_the_client_holds_more_connections_than_a_hundred_and_closes() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response([request.headers["User-Agent"]])

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = HttpClient()
    try:
        host, port = runner.addresses[0]
        async with client.session.get(f"http://{host}:{port}/") as response:
            assert await read_json(response) == ["lbproxy"]
        connector = client.session.connector
        assert isinstance(connector, aiohttp.TCPConnector)
        assert connector.limit == 0
    finally:
        await client.close()
        await client.close()
        await runner.cleanup()


async def test_a_refused_connection_is_told_by_the_systems_word() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        client = HttpClient()
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await client.session.get(f"http://127.0.0.1:{closed.getsockname()[1]}/?key=secret")
        await client.close()
    assert went_wrong(caught.value) == "cannot connect: Connection refused"


async def test_what_went_wrong_is_one_short_line_and_never_empty() -> None:
    assert went_wrong(OSError("two\n lines")) == "two lines"
    assert went_wrong(aiohttp.ServerDisconnectedError()) == "Server disconnected"
    assert went_wrong(EOFError()) == "EOFError"
    assert (
        went_wrong(aiohttp.ConnectionTimeoutError("to http://h/?secret")) == "cannot connect: nobody answers"
    )
    assert went_wrong(aiohttp.InvalidURL("http://h/?t=secret")) == "http://h/?t=***"
    assert len(went_wrong(OSError("x" * 5000))) == 200


class Names:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, told: Resolution | ResolveError) -> None:
        self.told = told
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Resolution:
        self.asked.append(name)
        if isinstance(self.told, ResolveError):
            raise self.told
        return self.told


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("::1", "127.0.0.1")])
async def test_hosts_are_asked_of_the_resolver_it_is_given(addresses: tuple[str, ...]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response([request.host])

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    names = Names(Resolution(addresses, 30.0))
    client = HttpClient(names.resolve)
    try:
        port = runner.addresses[0][1]
        for host in ("registry.test", "127.0.0.1"):
            async with client.session.get(f"http://{host}:{port}/") as response:
                assert await read_json(response) == [f"{host}:{port}"]
        assert names.asked == ["registry.test"]
    finally:
        await client.close()
        await runner.cleanup()


async def test_a_host_that_dns_cannot_tell_of_now_is_named_with_the_reason() -> None:
    client = HttpClient(Names(ResolveError("registry.test", "SERVFAIL", retryable=True)).resolve)
    try:
        with pytest.raises(aiohttp.ClientConnectorDNSError) as caught:
            await client.session.get("http://registry.test:80/")
    finally:
        await client.close()
    assert went_wrong(caught.value) == "registry.test does not resolve: SERVFAIL"


async def test_a_host_that_dns_does_not_know_is_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    async def system(_: ThreadedResolver, host: str, *__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known here either")

    monkeypatch.setattr(ThreadedResolver, "resolve", system)
    client = HttpClient(Names(ResolveError("registry.test", "no such name", retryable=False)).resolve)
    try:
        with pytest.raises(aiohttp.ClientConnectorDNSError, match=r"registry\.test is not known here either"):
            await client.session.get("http://registry.test:80/")
    finally:
        await client.close()
