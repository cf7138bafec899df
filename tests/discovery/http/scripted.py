"""An HTTP server that answers byte for byte what a test wrote, one connection a request, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """One request; the names of headers in lower case."""

    line: str
    headers: dict[str, str]


@dataclass
class Scripted:
    """`script` holds what comes next, in order; the last one stays."""

    script: list[bytes | Write] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/endpoints"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in head[1:] if line)
            self.asked.append(Asked(head[0], {name.lower(): value.strip() for name, _, value in pairs}))
            now = self.script[0] if len(self.script) == 1 else self.script.pop(0)
            if isinstance(now, bytes):
                writer.write(now)
                await writer.drain()
            else:
                await now(writer)


@asynccontextmanager
async def scripted(
    *script: bytes | Write, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Scripted]:
    """A server on a loopback port (0: a free one); its connections end with the block."""
    one = Scripted(list(script), scheme="http" if tls is None else "https")
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await one.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the block has ended
        finally:
            serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def reply(body: bytes | str = b"", status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer, after which the connection ends."""
    if isinstance(body, str):
        body = body.encode()
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*head, "", ""]).encode() + body


async def hang(_: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await asyncio.get_running_loop().create_future()


def slowly(data: bytes, pause_s: float) -> Write:
    """A byte at a time."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause_s)

    return write
