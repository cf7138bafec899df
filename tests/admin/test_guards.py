"""Who may ask the admin interface anything, and what slow, rude or numerous clients get."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lbproxy.admin.options import AdminOptions
from lbproxy.admin.server import AdminServer
from lbproxy.domain.address import Address
from lbproxy.wire.secrets import Secret
from tests.admin.fake import LOOPBACK, PAGE, FakeOperations, serving
from tests.patience import WITHIN_S

TOKEN = "correct horse"


async def raw(server: AdminServer, data: bytes, *, to: int = 0, eof: bool = False) -> bytes:
    """What comes back for these bytes, until the server closes; a request says `Connection: close` for that."""
    address = server.addresses[to]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), WITHIN_S)
    finally:
        writer.close()


async def status(
    server: AdminServer, method: str, path: str, headers: dict[str, str] | None = None, *, to: int = 0
) -> int:
    all_headers = {"Host": "127.0.0.1"} | (headers or {})
    lines = [f"{name}: {value}\r\n" for name, value in all_headers.items()]
    request = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n{''.join(lines)}\r\n"
    answer = await raw(server, request.encode("utf-8", "surrogateescape"), to=to)
    return int(answer.split(b" ", 2)[1])


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def guarded(operations: FakeOperations) -> AsyncIterator[AdminServer]:
    async with serving(operations, AdminOptions(bind=LOOPBACK, token=Secret(value=TOKEN))) as server:
        yield server


@pytest.fixture
async def server(operations: FakeOperations) -> AsyncIterator[AdminServer]:
    async with serving(operations) as running:
        yield running


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer \udcff\udcfe", 401),
        (TOKEN, 401),
        (f"Token {TOKEN}", 401),
        (f"Basic {TOKEN}", 401),
        ("Basic %%%", 401),
        (basic("wrong"), 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (basic(TOKEN), 200),
    ],
)
async def test_the_token_decides(guarded: AdminServer, authorization: str | None, expected: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert await status(guarded, "GET", "/api/v1/config", headers) == expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/metrics", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz?strict=0", 200),
        ("GET", "/", 401),
        ("GET", "/api/v1/listeners", 401),
        ("GET", "/nothing", 401),
        ("GET", "/metrics/", 401),
        ("GET", "//metrics", 401),
        ("POST", "/api/v1/drain", 401),
        ("POST", "/api/v1/upstreams/web/sources/consul/obey", 401),
        ("DELETE", "/api/v1/sessions/1", 401),
        ("PATCH", "/api/v1/drain", 401),
    ],
)
async def test_only_what_scrapers_and_kubelets_read_needs_no_token(
    operations: FakeOperations, guarded: AdminServer, method: str, path: str, expected: int
) -> None:
    assert await status(guarded, method, path) == expected
    assert operations.told == []


async def test_the_token_file_is_read_again_and_its_loss_lets_nobody_in(
    operations: FakeOperations, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    options = AdminOptions(bind=LOOPBACK, token=Secret(path=file))
    async with serving(operations, options) as server:
        assert await status(server, "GET", "/", {"Authorization": "Bearer first"}) == 200
        file.write_text("the second one\n")
        assert await status(server, "GET", "/", {"Authorization": "Bearer first"}) == 401
        assert await status(server, "GET", "/", {"Authorization": "Bearer the second one"}) == 200
        file.unlink()
        assert await status(server, "GET", "/", {"Authorization": "Bearer the second one"}) == 503


HOST = {"Host": "127.0.0.1:9900"}


@pytest.mark.parametrize(
    ("headers", "reading", "changing"),
    [
        ({}, 200, 202),
        ({"Host": "127.0.0.1:9900"}, 200, 202),
        ({"Host": "[::1]:9900"}, 200, 202),
        ({"Host": "localhost:9900"}, 200, 202),
        ({"Host": "LOCALHOST"}, 200, 202),
        ({"Host": "rebound.example:9900"}, 403, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403, 403),
        ({"Host": "localhost.rebound.example"}, 403, 403),
        ({"Host": "[::1"}, 403, 403),
        ({**HOST, "Origin": "http://127.0.0.1:9900"}, 200, 202),
        ({**HOST, "Origin": "http://127.0.0.1:9901"}, 200, 403),
        ({**HOST, "Origin": "http://evil.example"}, 200, 403),
        ({**HOST, "Origin": "http://evil.example/127.0.0.1:9900"}, 200, 403),
        ({**HOST, "Origin": "null"}, 200, 403),
        ({**HOST, "Origin": "http://[::1"}, 200, 403),
        ({**HOST, "Sec-Fetch-Site": "cross-site"}, 200, 403),
        ({**HOST, "Sec-Fetch-Site": "same-site"}, 200, 403),
        ({**HOST, "Sec-Fetch-Site": "same-origin"}, 200, 202),
    ],
)
async def test_a_foreign_page_changes_nothing(
    operations: FakeOperations, server: AdminServer, headers: dict[str, str], reading: int, changing: int
) -> None:
    assert await status(server, "GET", "/api/v1/config", headers) == reading
    assert await status(server, "POST", "/api/v1/drain", headers) == changing
    assert operations.told == ([("drain",)] if changing == 202 else [])


async def test_a_password_that_the_browser_sends_by_itself_does_not_help_a_foreign_page(
    operations: FakeOperations, guarded: AdminServer
) -> None:
    foreign = {"Host": "lb.example", "Origin": "http://evil.example"}
    assert await status(guarded, "POST", "/api/v1/drain", foreign | {"Authorization": basic(TOKEN)}) == 403
    own = {"Host": "lb.example", "Origin": "http://lb.example"}
    assert await status(guarded, "POST", "/api/v1/drain", own | {"Authorization": basic(TOKEN)}) == 202
    # No browser adds a Bearer token by itself, so whoever sends one means it.
    assert (
        await status(guarded, "POST", "/api/v1/drain", foreign | {"Authorization": f"Bearer {TOKEN}"}) == 202
    )


async def test_probes_may_use_any_name(server: AdminServer) -> None:
    assert await status(server, "GET", "/healthz", {"Host": "lb.example"}) == 200


async def test_a_slow_body_is_given_up(operations: FakeOperations, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = b"POST /api/v1/drain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
    monkeypatch.setattr("lbproxy.admin.server.LINGER_S", 0.05)
    async with serving(operations, body_within_s=0.05) as server:
        answer = await raw(server, begun)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert operations.told == []


async def test_a_body_that_never_ends_is_cut_at_its_limit(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.server.LINGER_S", 0.05)
    head = b"POST /api/v1/drain HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % (b" " * 4096) * 20
    too_long = b"Content-Length: 9999999999\r\n\r\n "
    async with serving(operations) as server:
        for body in (chunks, too_long):
            assert (await raw(server, head + body)).startswith(b"HTTP/1.1 413 ")
    assert operations.told == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GARBAGE\r\n\r\n",
        b"BREW /api/v1/reload HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_000),
        b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 20_000),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"POST /api/v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00" * 100,
        b"",
    ],
)
@pytest.mark.both_loops
async def test_what_is_no_http_ends_quietly(
    operations: FakeOperations, server: AdminServer, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await raw(server, garbage, eof=True)
    assert not answer or answer.split(b" ", 2)[1].startswith(b"4")
    assert b"Traceback" not in answer
    assert "Traceback" not in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert operations.told == []
    assert await status(server, "GET", "/healthz") == 200


async def test_nobody_keeps_the_probes_out_by_saying_nothing(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of connections the one that has been silent longest gives way, one that is being answered does not."""
    monkeypatch.setattr("lbproxy.admin.server.CONNECTIONS", 3)
    async with serving(operations) as server, asyncio.timeout(WITHIN_S):
        address = (server.addresses[0].host, server.addresses[0].port)
        said = [b"", b"GET /healthz HTTP/1.1\r\nHo", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"]
        held = []
        for words in said:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(words)
            held.append((reader, writer))
        assert b"200 OK" in await held[2][0].readuntil(b"}\n")
        assert await status(server, "GET", "/healthz") == 200
        with contextlib.suppress(ConnectionResetError):
            assert await held[0][0].read() == b""
        for words, (reader, writer) in zip((b"st: x\r\n\r\n", said[2]), held[1:], strict=True):
            writer.write(words)
            assert b"200 OK" in await reader.readuntil(b"}\n")
        for _, writer in held:
            writer.close()


async def test_those_that_have_left_take_no_room(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.server.CONNECTIONS", 3)
    async with serving(operations) as server:
        address = (server.addresses[0].host, server.addresses[0].port)
        for _ in range(20):
            assert await status(server, "GET", "/healthz") == 200
            _, writer = await asyncio.open_connection(*address)  # comes and goes without a word
            writer.close()
            await writer.wait_closed()


async def test_a_newcomer_is_turned_away_while_all_the_others_are_being_answered(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.server.CONNECTIONS", 3)
    async with serving(operations) as server, asyncio.timeout(WITHIN_S):
        address = (server.addresses[0].host, server.addresses[0].port)
        held = [await asyncio.open_connection(*address) for _ in range(3)]
        for _, writer in held:
            writer.write(
                b"POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
        for reader, _ in held:  # its body is waited for
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert await raw(server, b"") == b""
        for reader, writer in held:
            writer.write(b"{}")
            assert (await reader.readline()).startswith(b"HTTP/1.1 415")
            writer.close()


async def test_an_idle_connection_is_closed(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.server.IDLE_S", 0.05)
    async with serving(operations) as server:
        assert await raw(server, b"") == b""
        assert await raw(server, b"GET /healthz HT") == b""


async def test_a_scraper_that_does_not_read_gives_its_place_back(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.routes.METRICS_WRITTEN_WITHIN_S", 0.1)
    huge = [b"#" * 65536] * 512
    asked = 0
    both = asyncio.Event()

    async def render(_: str) -> tuple[list[bytes], str]:
        nonlocal asked
        asked += 1
        if asked == 2:
            both.set()
        return (huge if asked <= 2 else [PAGE]), "text/plain"

    async with serving(operations, render=render) as server:
        stalled = []
        for _ in range(2):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((server.addresses[0].host, server.addresses[0].port))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            stalled.append(client)
        await asyncio.wait_for(both.wait(), WITHIN_S)
        assert await status(server, "GET", "/metrics") == 200
        for client in stalled:
            client.close()


async def test_the_second_address_serves_probes_and_nothing_else(operations: FakeOperations) -> None:
    options = AdminOptions(bind=LOOPBACK, token=Secret(value=TOKEN), metrics_bind=LOOPBACK)
    async with serving(operations, options) as server:
        assert len(set(server.addresses)) == 2
        for path in ("/metrics", "/healthz", "/readyz"):
            assert await status(server, "GET", path, to=1) == 200
        for path in ("/", "/api/v1/config"):
            assert await status(server, "GET", path, {"Authorization": f"Bearer {TOKEN}"}, to=1) == 404
        assert (
            await status(server, "POST", "/api/v1/drain", {"Authorization": f"Bearer {TOKEN}"}, to=1) == 404
        )
        assert await status(server, "POST", "/healthz", to=1) == 405
    assert operations.told == []


@pytest.mark.parametrize("make", [lambda: Address("0.0.0.0", 0, "inet"), lambda: Address("::1", 0, "inet6")])
async def test_a_wider_address_serves_with_a_token(
    operations: FakeOperations, make: Callable[[], Address]
) -> None:
    async with serving(operations, AdminOptions(bind=make(), token=Secret(value=TOKEN))) as server:
        assert server.addresses[0].port
