"""The demo's own upstream servers: just enough HTTP/1.1 for curl, a browser and load generators to show who answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

HEAD_LIMIT_BYTES: Final = 16384
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Speed:
    """What one upstream server is called, and how long it takes for an answer."""

    name: str
    delay_s: float

    @property
    def greeting(self) -> bytes:
        return f"hello from {self.name} ({self.delay_s * 1000:.0f} ms)\n".encode()


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request matters here."""

    body_bytes: int
    keep_alive: bool
    head_only: bool


def parse_head(head: bytes) -> Request | None:
    """Read a request's head (without the empty line). None for what is no request, or has a body of untold length."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        return None
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = fields.get("content-length", "0")
    if "transfer-encoding" in fields or not (length.isascii() and length.isdigit() and len(length) < 19):
        return None
    wish = fields.get("connection", "").lower()
    keep_alive = wish == "keep-alive" if words[2] == "HTTP/1.0" else wish != "close"
    return Request(int(length), keep_alive, words[0] == "HEAD")


class _Connection(asyncio.Protocol):
    """One client. A request is answered after the server's delay, one after the other; no task is needed for that."""

    def __init__(self, speed: Speed, connections: set[_Connection]) -> None:
        self._speed = speed
        self._connections = connections
        self._received = bytearray()
        self._body_left = 0
        self._answering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._connections.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def close(self) -> None:
        """Cut it off."""
        self._transport.abort()

    def _next(self) -> None:
        if self._answering is not None:
            if len(self._received) > HEAD_LIMIT_BYTES:  # a client that pipelines waits for its answers
                self._transport.pause_reading()
            return
        skipped = min(self._body_left, len(self._received))
        del self._received[:skipped]
        self._body_left -= skipped
        head, end, _ = self._received.partition(_END)
        if not end:
            if len(self._received) > HEAD_LIMIT_BYTES:
                self._refuse()
            return
        request = parse_head(bytes(head))
        if request is None:
            self._refuse()
            return
        del self._received[: len(head) + len(end)]
        self._body_left = request.body_bytes
        self._answering = asyncio.get_running_loop().call_later(self._speed.delay_s, self._answer, request)

    def _answer(self, request: Request) -> None:
        self._answering = None
        body = self._speed.greeting
        head = (
            f"HTTP/1.1 200 OK\r\nServer: {self._speed.name}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if request.keep_alive else 'close'}\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if request.head_only else body))
        if not request.keep_alive:
            self._transport.close()
            return
        self._transport.resume_reading()
        self._next()

    def _refuse(self) -> None:
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self._transport.close()


@asynccontextmanager
async def upstreams(speeds: Sequence[Speed]) -> AsyncIterator[list[int]]:
    """One server for each speed while the context lasts; their ports on 127.0.0.1, chosen by the kernel."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as servers:
        ports = []
        for speed in speeds:
            connections: set[_Connection] = set()

            def connected(speed: Speed = speed, connections: set[_Connection] = connections) -> _Connection:
                return _Connection(speed, connections)

            server = await loop.create_server(connected, "127.0.0.1", 0)
            servers.push_async_callback(_close, server, connections)
            ports.append(server.sockets[0].getsockname()[1])
        yield ports


async def _close(server: asyncio.Server, connections: set[_Connection]) -> None:
    server.close()
    for connection in list(connections):
        connection.close()
    await server.wait_closed()
