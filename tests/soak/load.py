"""Clients and upstreams of the long campaigns, as programs of their own: each has its own descriptors, memory and processor time.

    python -m tests.soak.load ROLE [KEY=NUMBER...]

An upstream prints its port as its first line. Every role ends with a line of JSON, what it counted: the clients' when they have
done their work, the others' when their stdin ends. Whoever sees a wrong byte ends with status 1 and says where.

Everything that is sent is a function of a number, which the client sends first (8 bytes): so both ends know what must come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tests.patience import WITHIN_S

NOISE: Final = random.Random(1).randbytes(1 << 20)
HEAD: Final = struct.Struct("!Q")
CHUNK_BYTES: Final = 65536
RESET: Final = struct.pack("ii", 1, 0)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
counted: Counter[str] = Counter()


class WrongByteError(Exception):
    """What came is not what was sent."""


def stream(number: int, offset: int, size: int) -> bytes:
    """`size` bytes of a number's stream from an offset on; no two numbers have a window of 16 bytes in common at one offset."""
    at = (offset + number * 4099) % len(NOISE)
    part = NOISE[at : at + size]
    while len(part) < size:
        part += NOISE[: size - len(part)]
    return part


async def send(writer: asyncio.StreamWriter, number: int, size: int, chance: random.Random) -> None:
    """Send a number's stream in pieces of random sizes: a few bytes, or more than the kernel takes at once."""
    sent = 0
    while sent < size:
        some = min(size - sent, 1 + chance.randrange(chance.choice((100, CHUNK_BYTES, len(NOISE)))))
        writer.write(stream(number, sent, some))
        await writer.drain()
        sent += some
        counted["sent_bytes"] += some


async def check(reader: asyncio.StreamReader, number: int, size: int | None, what: str) -> int:
    """Read `size` bytes of a number's stream (None: up to the end) and compare each; how many came."""
    got = 0
    while size is None or got < size:
        async with asyncio.timeout(WITHIN_S):
            part = await reader.read(CHUNK_BYTES if size is None else min(CHUNK_BYTES, size - got))
        if not part:
            break
        if part != stream(number, got, len(part)):
            raise WrongByteError(f"{what}: stream {number} is wrong within {got}..{got + len(part)}")
        got += len(part)
        counted["checked_bytes"] += len(part)
    return got


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


# Upstreams: what one does with a connection.


async def talk_streams(connection: Connection, chance: random.Random, settings: dict[str, int]) -> None:
    """The client's stream is checked, and its number's complement is sent back, both at once; then a FIN."""
    reader, writer = connection
    number, size = HEAD.unpack(await reader.readexactly(8))[0], settings["bytes"]
    async with asyncio.TaskGroup() as group:
        group.create_task(send(writer, number ^ 0xFFFF, size, chance), name="sending")
        got = await check(reader, number, size, "upstream")
    if got != size:
        raise WrongByteError(f"upstream: stream {number} ends after {got} bytes")
    writer.write_eof()
    await reader.read(1)


async def talk_resets(connection: Connection, chance: random.Random, settings: dict[str, int]) -> None:
    """As long as it goes: a stream each way, and in every other session a reset somewhere."""
    reader, writer = connection
    number = HEAD.unpack(await reader.readexactly(8))[0]
    until = chance.randrange(settings["bytes"])
    async with asyncio.TaskGroup() as group:
        group.create_task(send(writer, number ^ 0xFFFF, settings["bytes"], chance), name="sending")
        await check(reader, number, until if number % 2 else None, "upstream")
        if number % 2:
            reset(writer)
            counted["resets"] += 1
            raise ConnectionResetError


async def talk_echo(connection: Connection, chance: random.Random, settings: dict[str, int]) -> None:
    reader, writer = connection
    while part := await reader.read(CHUNK_BYTES):
        writer.write(part)
        await writer.drain()


async def talk_endless(connection: Connection, chance: random.Random, settings: dict[str, int]) -> None:
    """Send what the other side takes, for ever."""
    _, writer = connection
    while True:
        writer.write(NOISE[:CHUNK_BYTES])
        await writer.drain()
        counted["sent_bytes"] += CHUNK_BYTES


Talk = Callable[[Connection, random.Random, dict[str, int]], Awaitable[None]]
UPSTREAMS: dict[str, Talk] = {
    "upstream-streams": talk_streams,
    "upstream-resets": talk_resets,
    "upstream-echo": talk_echo,
    "upstream-endless": talk_endless,
}


async def upstream(role: str, settings: dict[str, int]) -> None:
    talk = UPSTREAMS[role]
    chance = random.Random(settings.get("seed", 1))
    wrong: list[WrongByteError] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted["accepted"] += 1
        counted["open"] += 1
        try:
            await talk((reader, writer), random.Random(chance.random()), settings)
        except* (ConnectionError, asyncio.IncompleteReadError):
            counted["broken"] += 1
        except* WrongByteError as group:
            wrong.extend(each for each in group.exceptions if isinstance(each, WrongByteError))
        finally:
            counted["open"] -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_told()
    server.close()
    if wrong:
        raise wrong[0]


async def until_told() -> None:
    """A line on stdin asks for the counts so far; its end is the end."""
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(counted), flush=True)


# Clients: what one does with a connection.


async def open_one(settings: dict[str, int]) -> Connection:
    async with asyncio.timeout(WITHIN_S):
        return await asyncio.open_connection("127.0.0.1", settings["port"])


async def client_streams(number: int, chance: random.Random, settings: dict[str, int]) -> None:
    reader, writer = await open_one(settings)
    try:
        writer.write(HEAD.pack(number))
        async with asyncio.TaskGroup() as group:
            group.create_task(send(writer, number, settings["bytes"], chance), name="sending")
            got = await check(reader, number ^ 0xFFFF, None, "client")
        if got != settings["bytes"]:
            raise WrongByteError(f"client: stream {number} ends after {got} bytes")
    finally:
        writer.close()


async def client_resets(number: int, chance: random.Random, settings: dict[str, int]) -> None:
    """The even ones reset at a random offset; the odd ones are reset."""
    reader, writer = await open_one(settings)
    try:
        writer.write(HEAD.pack(number))
        async with asyncio.TaskGroup() as group:
            group.create_task(send(writer, number, settings["bytes"], chance), name="sending")
            until = None if number % 2 else chance.randrange(settings["bytes"])
            await check(reader, number ^ 0xFFFF, until, "client")
            reset(writer)
            raise ConnectionResetError
    except* ConnectionError:
        counted["resets"] += 1
    finally:
        writer.close()


async def client_short(number: int, chance: random.Random, settings: dict[str, int]) -> None:
    """One request, one answer. What fails is counted: in some campaigns much has to."""
    try:
        reader, writer = await open_one(settings)
        try:
            writer.write(HEAD.pack(number))
            async with asyncio.timeout(WITHIN_S):
                answer = await reader.readexactly(8)
            if answer != HEAD.pack(number):
                raise WrongByteError(f"client: {answer!r} for {number}")
            counted["served"] += 1
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        counted["refused"] += 1


async def client_stalled(number: int, chance: random.Random, settings: dict[str, int]) -> None:
    """Connect and read nothing, until told."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", settings["port"]))
    stalled.append(sock)
    counted["open"] += 1


async def client_bulk(number: int, chance: random.Random, settings: dict[str, int]) -> None:
    """Read as fast as it goes, until told."""
    with socket.create_connection(("127.0.0.1", settings["port"])) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        buffer = bytearray(1 << 20)
        while got := await loop.sock_recv_into(sock, buffer):
            counted["received_bytes"] += got


stalled: list[socket.socket] = []
Client = Callable[[int, random.Random, dict[str, int]], Awaitable[None]]
CLIENTS: dict[str, Client] = {
    "client-streams": client_streams,
    "client-resets": client_resets,
    "client-short": client_short,
    "client-stalled": client_stalled,
    "client-bulk": client_bulk,
}
STAYING: Final = {"client-stalled", "client-bulk"}


async def clients(role: str, settings: dict[str, int]) -> None:
    """`number` connections, `at_once` of them at a time."""
    client = CLIENTS[role]
    chance = random.Random(settings.get("seed", 1))
    left = iter(range(settings["number"]))

    async def worker() -> None:
        for number in left:
            await client(number, random.Random(chance.random()), settings)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker(), name="client") for _ in range(settings.get("at_once", 50))]
        if role in STAYING:
            await until_told()
            for each in workers:
                each.cancel()
    for sock in stalled:
        sock.close()


def main() -> int:
    role, *words = sys.argv[1:]
    settings = {key: int(value) for key, _, value in (word.partition("=") for word in words)}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(upstream(role, settings) if role in UPSTREAMS else clients(role, settings))
    except* WrongByteError as group:
        print(f"wrong: {group.exceptions[0]}", file=sys.stderr)
        sys.stdout.flush()
        os._exit(1)
    print(json.dumps(counted), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
