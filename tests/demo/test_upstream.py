"""The demo's upstream servers: the HTTP they speak, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lbproxy.demo.upstream import HEAD_LIMIT_BYTES, Request, Speed, parse_head, upstreams

QUICK = Speed("quick", 0.001)
GET = b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1", Request(0, keep_alive=True, head_only=False)),
        (b"HEAD / HTTP/1.1\r\nHost: a", Request(0, keep_alive=True, head_only=True)),
        (b"GET / HTTP/1.1\r\nCONNECTION: Close", Request(0, keep_alive=False, head_only=False)),
        (b"GET / HTTP/1.0", Request(0, keep_alive=False, head_only=False)),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", Request(0, keep_alive=True, head_only=False)),
        (b"POST / HTTP/1.1\r\nContent-Length: 12", Request(12, keep_alive=True, head_only=False)),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", None),
        (b"GET /", None),
        (b"GET / HTTP/2.0", None),
        (b"\xff\x00\xfe", None),
    ],
)
def test_request_heads(head: bytes, expected: Request | None) -> None:
    assert parse_head(head) == expected


async def talk(sent: bytes) -> str:
    """What the server says to these bytes, until it closes."""
    async with upstreams([QUICK]) as (port,):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.decode()


@pytest.mark.both_loops
async def test_it_says_who_answers() -> None:
    answer = await talk(LAST)
    assert answer.startswith("HTTP/1.1 200 OK\r\nServer: quick\r\n")
    assert answer.endswith("\r\n\r\nhello from quick (1 ms)\n")


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_turn() -> None:
    body = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /"
    answer = await talk(GET + body + b"HEAD / HTTP/1.1\r\n\r\n" + LAST)
    assert answer.count("HTTP/1.1 200 OK") == 4
    assert answer.count("hello from quick") == 3


@pytest.mark.parametrize("sent", [b"garbage\r\n\r\n", b"x" * (HEAD_LIMIT_BYTES + 1)])
async def test_what_is_no_request_is_refused(sent: bytes) -> None:
    assert (await talk(sent)).startswith("HTTP/1.1 400 ")


@pytest.mark.both_loops
async def test_clients_are_cut_off_at_the_end() -> None:
    async with upstreams([Speed("never", 3600.0), QUICK]) as (never, quick):
        waiting = [await asyncio.open_connection("127.0.0.1", port) for port in (never, quick)]
        for _, writer in waiting:
            writer.write(GET)
        await waiting[1][0].readuntil(b"(1 ms)\n")
    for reader, writer in waiting:
        with contextlib.suppress(ConnectionResetError):  # as it comes: a reset, or the end
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
