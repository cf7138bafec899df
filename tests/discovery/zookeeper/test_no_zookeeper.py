"""What answers is no ZooKeeper, or none that answers: an error in a bounded time, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.discovery.zookeeper.registry import ZooKeeperRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.secrets import Secret
from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort

TIMEOUT_S = 0.5
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def closing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x00\x00\x08" + os.urandom(8))
    await reader.read()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    writers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def registry(port: int) -> ZooKeeperRegistry:
    return ZooKeeperRegistry(ZooKeeperOptions((f"127.0.0.1:{port}",), "/web", TIMEOUT_S))


@pytest.mark.parametrize("talk", [silent, closing, http, noise])
async def test_what_is_no_zookeeper_is_an_error_in_a_bounded_time(talk: Talk) -> None:
    async with serving(talk) as port, asyncio.timeout(WITHIN_S):
        asked = registry(port)
        with pytest.raises(RegistryError, match=f"127.0.0.1:{port} /web: "):
            await asked.next()
        with pytest.raises(RegistryError, match="not connected"):
            await asked.confirm()
        await asked.close()


async def test_nobody_there_is_an_error_that_says_so() -> None:
    with ReservedPort() as port:
        asked = registry(port.number)
        with pytest.raises(RegistryError, match="Connection refused"):
            await asked.next()


async def test_a_name_that_does_not_resolve_is_an_error() -> None:
    asked = ZooKeeperRegistry(ZooKeeperOptions(("no-such-host.invalid:2181",), "/web", TIMEOUT_S))
    with pytest.raises(RegistryError):
        await asked.next()


async def test_a_password_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    secret = Secret(path=tmp_path / "none")
    asked = ZooKeeperRegistry(ZooKeeperOptions(("127.0.0.1:1",), "/web", TIMEOUT_S, "user", secret))
    with pytest.raises(RegistryError, match="none"):
        await asked.next()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10, 100])
async def test_it_can_be_cancelled_at_any_point(turns: int) -> None:
    async with serving(silent) as port:
        asked = registry(port)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asked.next(), name="next")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await asked.close()
