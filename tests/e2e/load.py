"""New connections at a steady pace beside whatever a test does; each one must be served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.e2e.peers import Address, exchange, until

CONNECTIONS_A_SECOND: Final = 300


class Load:
    """`failed` holds what went wrong, in words."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []

    async def goes_on(self, count: int = 50) -> None:
        """Wait for that many more."""
        target = self.done + count
        await until(lambda: self.done + len(self.failed) >= target)


@asynccontextmanager
async def steady_load(address: Address) -> AsyncIterator[Load]:
    """As long as the block lasts; at its end everything that was begun has ended, and nothing has failed."""
    load, over = Load(), asyncio.Event()

    async def client() -> None:
        try:
            answer = await exchange(address, b"request")
            assert answer == b"request", answer
        except (OSError, AssertionError) as error:
            load.failed.append(repr(error))
        else:
            load.done += 1

    async def dial(group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        while not over.is_set():
            count += 1
            group.create_task(client(), name="client")
            # The pace is the subject here: so many a second, also after a turn that took long.
            await asyncio.sleep(max(0.0, began + count / CONNECTIONS_A_SECOND - loop.time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(dial(group), name="load")
        try:
            yield load
        finally:
            over.set()
    assert load.done
    assert load.failed == []
