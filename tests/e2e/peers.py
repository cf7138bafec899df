"""Clients and upstreams around the program: upstreams on the test's event loop, and plain sockets driven by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from tests import accepting
from tests.e2e.program import LOOK_AGAIN_MS
from tests.patience import WITHIN_S

Talk = Callable[[socket.socket], Awaitable[None]]
"""What an upstream does with one connection; the socket is closed when it returns."""

Address = tuple[str, int]
RESET: Final = struct.pack("ii", 1, 0)


async def echo(client: socket.socket) -> None:
    """Send back what comes, until the FIN."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(client, 65536):
        await loop.sock_sendall(client, data)


async def hold(client: socket.socket) -> None:
    """Say one byte, then read until the end."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, b"!")
    while await loop.sock_recv(client, 65536):
        pass


class Upstream:
    """Listens on a port of its own; counts what it accepted and what is open."""

    def __init__(self, group: asyncio.TaskGroup, talk: Talk) -> None:
        self.accepted = 0
        self.open = 0
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listening.setblocking(False)
        self.port: int = self.listening.getsockname()[1]
        self._group = group
        self._talk = talk
        self._connections: set[socket.socket] = set()
        group.create_task(self._accept(), name=f"upstream {self.port}")

    async def _accept(self) -> None:
        while True:
            client = await accepting.accept(self.listening)
            self.accepted += 1
            self.open += 1
            self._connections.add(client)
            self._group.create_task(self._serve(client), name="upstream connection")

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(ConnectionError):
                await self._talk(client)
        finally:
            self._connections.discard(client)
            self.open -= 1

    def close(self) -> None:
        """Close what a cancelled task may never have begun to serve, and the listening socket."""
        for client in self._connections:
            client.close()
        self.listening.close()


@asynccontextmanager
async def upstreams(*talks: Talk) -> AsyncIterator[list[Upstream]]:
    """An upstream for each way to talk; gone, with every connection, at the end."""
    found: list[Upstream] = []
    try:
        async with asyncio.TaskGroup() as group:
            found += [Upstream(group, talk) for talk in talks]
            yield found
            raise _OverError
    except* _OverError:
        pass
    finally:
        for one in found:
            one.close()


class _OverError(Exception):
    """Ends the upstreams' tasks."""


async def dial(address: Address) -> socket.socket:
    """A connected client; the caller closes it."""
    client = socket.socket()
    client.setblocking(False)
    try:
        async with asyncio.timeout(WITHIN_S):
            await asyncio.get_running_loop().sock_connect(client, address)
    except BaseException:
        client.close()
        raise
    return client


async def receive(client: socket.socket, count: int = 65536) -> bytes:
    """What comes next; b"" is the FIN."""
    async with asyncio.timeout(WITHIN_S):
        return await asyncio.get_running_loop().sock_recv(client, count)


async def exchange(address: Address, request: bytes = b"x") -> bytes:
    """One short connection: send, read as much, close."""
    client = await dial(address)
    with client:
        await asyncio.get_running_loop().sock_sendall(client, request)
        answer = b""
        while len(answer) < len(request):
            part = await receive(client)
            if not part:
                break
            answer += part
    return answer


async def hold_one(address: Address) -> socket.socket:
    """A client whose upstream (one that talks as `hold` does) has answered; the caller closes it."""
    client = await dial(address)
    assert await receive(client, 1) == b"!"
    return client


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Let the upstreams and clients of the test's loop go on until something is true. It may be true in another process,
    which raises no event here: so this looks again, with a deadline."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_MS / 1000)


def connect(address: Address) -> socket.socket:
    """A blocking client with a bound on every wait; the caller closes it."""
    return socket.create_connection(address, timeout=WITHIN_S)


def listen() -> tuple[socket.socket, int]:
    """A blocking upstream for a test that drives both ends by hand, and its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(WITHIN_S)
    return listening, listening.getsockname()[1]


def accept(listening: socket.socket) -> socket.socket:
    accepted, _ = listening.accept()
    accepted.settimeout(WITHIN_S)
    return accepted


def reset(peer: socket.socket) -> None:
    """Close with an RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def connect_and_read(address: Address) -> tuple[int, str]:
    """As `read_to_end` for a new client. An RST that is quicker than the connect's own return is an RST all the same."""
    try:
        with connect(address) as client:
            return read_to_end(client)
    except ConnectionResetError:
        return 0, "RST"


def read_to_end(peer: socket.socket) -> tuple[int, str]:
    """How many bytes came, and how the stream ended: `FIN`, `RST`, or `stalled`."""
    count = 0
    try:
        while part := peer.recv(1 << 18):
            count += len(part)
    except ConnectionResetError:
        return count, "RST"
    except TimeoutError:
        return count, "stalled"
    return count, "FIN"
