"""Endpoints behind a URL: when it is asked, what is believed, and what is an error."""

from __future__ import annotations

import asyncio
import gzip
import random
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.http.options import HttpOptions
from lbproxy.discovery.http.registry import LARGE_BYTES, HttpRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import RETRY_AFTER_MOST_S, HttpClient
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.discovery.http.scripted import Scripted, Write, hang, reply, scripted, slowly
from tests.servers.fixtures import StartServer
from tests.servers.ports import ReservedPort
from tests.servers.programs import require

ONE = Answer((Candidate("10.0.0.1", 80),))
TWO = Answer((Candidate("10.0.0.1", 80), Candidate("10.0.0.2", 80)))
BODY_ONE = '["10.0.0.1:80"]'
BODY_TWO = '["10.0.0.1:80", "10.0.0.2:80"]'
GOOD = reply(BODY_ONE)


class Sleeps:
    """No sleep at all, but what was asked for; `gate` lets a test hold it."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.gate is not None:
            await self.gate.wait()


@asynccontextmanager
async def registry(
    url: str, sleep: Callable[[float], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[HttpRegistry]:
    client = HttpClient()
    one = HttpRegistry(HttpOptions(url, **options), client, sleep or Sleeps(), random.Random(1))
    try:
        yield one
    finally:
        await one.close()
        await client.close()


async def test_the_list_is_asked_for_at_once_and_then_once_an_interval() -> None:
    sleeps = Sleeps()
    async with (
        scripted(GOOD, reply(BODY_TWO)) as server,
        registry(server.url, sleeps, interval_s=10) as asked,
    ):
        assert await asked.next() == ONE
        assert sleeps.slept == []
        assert await asked.next() == TWO
        assert await asked.next() == TWO
    assert len(sleeps.slept) == 2
    assert all(9 <= seconds <= 11 for seconds in sleeps.slept)
    assert sleeps.slept[0] != sleeps.slept[1]


async def test_an_etag_is_sent_back_and_304_is_the_answer_of_before() -> None:
    first = reply(BODY_ONE, "200 OK", 'ETag: W/"a,1"')
    later = (reply(b"", "304 Not Modified"), reply(BODY_TWO))
    async with scripted(first, *later) as server, registry(server.url) as asked:
        known = await asked.next()
        assert await asked.next() is known
        assert await asked.next() == TWO
        await asked.next()
    assert [each.headers.get("if-none-match") for each in server.asked] == [None, 'W/"a,1"', 'W/"a,1"', None]


@pytest.mark.parametrize(
    ("date", "sent"),
    [
        ("Date: Thu, 26 Nov 2026 10:00:10 GMT", "Thu, 26 Nov 2026 10:00:00 GMT"),
        ("Date: Thu, 26 Nov 2026 10:00:01 GMT", None),  # may have changed again within that second
        ("X-No-Date: 1", None),
        ("Date: yesterday", None),
    ],
)
async def test_a_date_is_sent_back_when_it_can_tell_a_change(date: str, sent: str | None) -> None:
    first = reply(BODY_ONE, "200 OK", "Last-Modified: Thu, 26 Nov 2026 10:00:00 GMT", date)
    async with scripted(first, GOOD) as server, registry(server.url) as asked:
        await asked.next()
        await asked.next()
    assert server.asked[1].headers.get("if-modified-since") == sent


async def test_the_same_bytes_again_are_the_answer_of_before() -> None:
    async with scripted(GOOD) as server, registry(server.url) as asked:
        known = await asked.next()
        assert await asked.next() is known


async def test_after_an_error_everything_is_asked_for_again_and_at_once() -> None:
    sleeps = Sleeps()
    tagged = reply(BODY_ONE, "200 OK", 'ETag: "1"')
    async with (
        scripted(tagged, reply(b"", "500 Oops"), tagged) as server,
        registry(server.url, sleeps) as asked,
    ):
        await asked.next()
        with pytest.raises(RegistryError, match="500 Oops"):
            await asked.next()
        assert await asked.next() == ONE
    assert "if-none-match" not in server.asked[2].headers
    assert len(sleeps.slept) == 1


async def test_a_second_opinion_is_unconditional_and_disturbs_nothing() -> None:
    sleeps = Sleeps()
    sleeps.gate = asyncio.Event()
    async with (
        scripted(
            reply(BODY_ONE, "200 OK", 'ETag: "1"'), reply(BODY_TWO), reply(b"", "304 Not Modified")
        ) as server,
        registry(server.url, sleeps) as asked,
        asyncio.TaskGroup() as group,
    ):
        known = await asked.next()
        following = group.create_task(asked.next(), name="next")
        assert await asked.confirm() == TWO
        assert not following.done()
        sleeps.gate.set()
        assert await following is known
    assert server.asked[1].headers.get("cache-control") == "no-cache"
    assert [each.headers.get("if-none-match") for each in server.asked] == [None, None, '"1"']


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(b"", "204 No Content"), "answered 204 No Content"),
        (reply(BODY_ONE, "206 Partial Content"), "answered 206"),
        (reply(b"", "304 Not Modified"), "answered 304"),
        (reply("[]", "404 Not Found"), "answered 404 Not Found"),
        (reply("[]", "500 Internal Server Error"), "answered 500"),
        (reply("<html><body>It works!</body></html>"), "no JSON"),
        (reply("{"), "no JSON"),
        (reply(""), "no JSON"),
        (reply(b"\xff\xfe\x00"), "no JSON"),
        (reply("[" * 200_000), "no JSON"),
        (reply("[1" + "0" * 5000 + "]"), "no JSON"),
        (reply("null"), "list of endpoints"),
        (reply('{"error": "no leader"}'), "endpoints"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", "."),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "."),
        (b'HTTP/1.1 200 OK\r\n\r\n["10.0.0.1:80"', "no JSON"),
        (b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\n["10.0.0.1:80"]', "."),
        (b"", "."),
        (b"\x15\x03\x01\x00\x02\x02\x50", "."),
        (reply(b"", "302 Found"), "redirect to nowhere"),
        (reply(b"", "302 Found", "Location: /endpoints"), "more than 3 redirects"),
        (
            reply(b"", "307 Temporary Redirect", "Location: http://127.0.0.2:1/?key=secret"),
            r"redirected to http://127.0.0.2:1/\?key=\*\*\*: another server",
        ),
        (reply(b"", "301 Moved", "Location: http://127.0.0.1:1/"), "another server"),
        (reply(b"", "301 Moved", "Location: file:///etc/passwd"), "another server"),
        (reply(b"", "301 Moved", "Location: http://[::1/"), "."),
    ],
    ids=str,
)
async def test_what_is_no_full_answer_is_an_error(answer: bytes, message: str) -> None:
    async with scripted(answer) as server, registry(server.url + "?key=secret") as asked:
        with pytest.raises(RegistryError, match=message) as raised:
            await asked.next()
        with pytest.raises(RegistryError, match=message):
            await asked.confirm()
    assert server.url in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (["Retry-After: 7"], 7),
        (["Retry-After: 999999999999"], RETRY_AFTER_MOST_S),
        (["Retry-After: Thu, 26 Nov 2026 10:00:30 GMT", "Date: Thu, 26 Nov 2026 10:00:00 GMT"], 30),
        (["Retry-After: Thu, 26 Nov 2026 10:00:30 GMT"], None),
        (["Retry-After: soon"], None),
        (["Retry-After: -5"], None),
        ([], None),
    ],
)
async def test_how_long_it_wants_to_be_left_alone_is_passed_on(
    headers: list[str], wait_s: float | None
) -> None:
    async with (
        scripted(reply(b"", "503 Service Unavailable", *headers)) as server,
        registry(server.url) as asked,
    ):
        with pytest.raises(RegistryError) as raised:
            await asked.next()
    assert raised.value.retry_after_s == wait_s


@pytest.mark.parametrize("answer", [hang, slowly(reply(b"[" + b" " * 10_000), 0.01)], ids=["silent", "slow"])
async def test_a_server_without_an_end_is_given_up(answer: Write) -> None:
    async with scripted(answer) as server, registry(server.url, timeout_s=0.3) as asked:
        with pytest.raises(RegistryError, match=r"no full answer within 0.3 s"):
            await asked.next()


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with ReservedPort() as port:
        async with registry(f"http://127.0.0.1:{port.number}/") as asked:
            with pytest.raises(RegistryError, match=f"127.0.0.1:{port.number}"):
                await asked.next()


async def test_a_redirect_within_the_server_is_followed_with_the_token() -> None:
    moved = reply(b"", "308 Permanent Redirect", "Location: /v2")
    token = Secret(value="t0p")
    async with scripted(moved, GOOD) as server, registry(server.url, token=token) as asked:
        assert await asked.next() == ONE
    assert [each.line for each in server.asked] == ["GET /endpoints HTTP/1.1", "GET /v2 HTTP/1.1"]
    assert [each.headers["authorization"] for each in server.asked] == ["Bearer t0p"] * 2


async def test_headers_and_a_token_that_changes_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    sent: dict[str, Any] = {"token": Secret(path=file), "headers": (("X-Tenant", "a"),)}
    async with scripted(GOOD) as server, registry(server.url, **sent) as asked:
        await asked.next()
        file.write_text("second one")
        await asked.next()
        file.unlink()
        with pytest.raises(RegistryError, match="token"):
            await asked.next()
    assert [each.headers["authorization"] for each in server.asked] == ["Bearer first", "Bearer second one"]
    assert server.asked[0].headers["x-tenant"] == "a"


async def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(BODY_TWO.encode())
    async with (
        scripted(reply(packed, "200 OK", "Content-Encoding: gzip")) as server,
        registry(server.url) as asked,
    ):
        assert await asked.next() == TWO
    assert "gzip" in server.asked[0].headers["accept-encoding"]


async def test_an_answer_that_unpacks_without_bound_is_cut() -> None:
    bomb = gzip.compress(b" " * (1 << 28))
    async with (
        scripted(reply(bomb, "200 OK", "Content-Encoding: gzip")) as server,
        registry(server.url) as asked,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(RegistryError, match="more than"):
                await asked.next()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 100 << 20


async def test_a_large_list_is_read_in_full() -> None:
    entries = [f"10.{n >> 16}.{(n >> 8) & 255}.{n & 255}:80" for n in range(10_000)]
    body = str(entries).replace("'", '"')
    assert len(body) > LARGE_BYTES
    async with scripted(reply(body)) as server, registry(server.url) as asked:
        answer = await asked.next()
    assert [f"{each.host}:{each.port}" for each in answer.candidates] == entries


@pytest.mark.parametrize("turns", [*range(12), 20, 40])
async def test_it_can_be_cancelled_at_any_point(turns: int) -> None:
    async with scripted(reply(BODY_ONE, "200 OK", 'ETag: "1"')) as server, registry(server.url) as asked:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asked.next(), name="next")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        assert await asked.next() == ONE


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `registry.internal` that vouches for itself, and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            str(require("openssl")),
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=registry.internal",
            "-addext",
            "subjectAltName=DNS:registry.internal",
            "-keyout",
            str(file),
            "-out",
            f"{file}.crt",
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@asynccontextmanager
async def tls_server(certificate: Path, *script: bytes) -> AsyncIterator[Scripted]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with scripted(*script, tls=context) as server:
        yield server


@pytest.mark.foreign
async def test_tls_is_checked_by_the_configured_authority_and_name(certificate: Path) -> None:
    async with tls_server(certificate, GOOD) as server:
        async with registry(
            server.url, tls=TlsOptions(certificate, server_name="registry.internal")
        ) as asked:
            assert await asked.next() == ONE
        for tls in (TlsOptions(certificate), TlsOptions(), TlsOptions(Path("/no/such/file"))):
            async with registry(server.url, tls=tls) as asked:
                with pytest.raises(RegistryError):
                    await asked.next()
        async with registry(server.url, tls=TlsOptions(verify=False)) as asked:
            assert await asked.next() == ONE


@pytest.mark.foreign
async def test_a_redirect_from_tls_to_plain_http_is_not_followed(certificate: Path) -> None:
    async with (
        scripted(GOOD) as plain,
        tls_server(certificate, reply(b"", "302 Found", f"Location: {plain.url}")) as server,
        registry(server.url, tls=TlsOptions(verify=False), token=Secret(value="t")) as asked,
    ):
        with pytest.raises(RegistryError, match="another server"):
            await asked.next()
    assert plain.asked == []


async def test_nginx_serves_a_file_that_changes_and_is_not_sent_twice(
    nginx_http: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "www" / "endpoints.json"
    file.parent.mkdir()
    file.write_text(BODY_ONE)
    log = tmp_path / "access.log"
    config = f"server {{ access_log {log} combined; listen 127.0.0.1:@web@; root {file.parent}; gzip on; gzip_types *; }}"
    server = nginx_http(config)
    async with registry(f"http://127.0.0.1:{server.port}/endpoints.json") as asked:
        known = await asked.next()
        assert known == ONE
        assert await asked.next() is known
        beside = file.with_suffix(".new")
        beside.write_text(BODY_TWO)
        beside.replace(file)
        assert await asked.next() == TWO
        server.stop()
        with pytest.raises(RegistryError):
            await asked.next()
    statuses = [line.split('"')[2].split()[0] for line in log.read_text().splitlines()]
    assert statuses == ["200", "304", "200"]


async def test_a_server_that_takes_no_connection_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def dark(*_: Any, **__: Any) -> Any:
        raise aiohttp.ConnectionTimeoutError("Connection timeout to host http://h/?key=secret")

    monkeypatch.setattr(aiohttp.ClientSession, "get", dark)
    async with registry("http://h/?key=secret") as asked:
        with pytest.raises(RegistryError, match=r"^http://h/\?key=\*\*\*: cannot connect: nobody answers$"):
            await asked.next()
