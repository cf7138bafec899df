"""New connections at a steady rate through the program, and an eye on its upstream meanwhile: for the campaigns of registries in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.e2e.peers import Address, exchange, until
from tests.e2e.program import Program

RATE: Final = 300.0  # connections a second
LOOK_EVERY_S: Final = 0.2
MOST_AT_ONCE: Final = 200  # a test's loop that was held up makes up for it in pieces


class Traffic:
    """`done` connections were served, `failures` says what became of the others. `fewest` is the smallest number of endpoints that took
    sessions at any look."""

    def __init__(self) -> None:
        self.done = 0
        self.failures: list[str] = []
        self.fewest: int | None = None

    async def one(self, address: Address, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                answer = await exchange(address, b"ping")
            except (OSError, TimeoutError) as error:
                self.failures.append(repr(error))
            else:
                if answer != b"ping":
                    self.failures.append(f"answered {answer!r}")
                else:
                    self.done += 1

    async def goes_on(self, count: int = 50) -> None:
        """Wait for that many more connections."""
        target = self.done + count
        await until(lambda: self.done + len(self.failures) >= target)

    def look(self, eligible: int) -> None:
        self.fewest = eligible if self.fewest is None else min(self.fewest, eligible)


async def _flow(traffic: Traffic, address: Address, rate: float) -> None:
    loop = asyncio.get_running_loop()
    limit = asyncio.Semaphore(MOST_AT_ONCE)
    started, made = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while True:
            due = int((loop.time() - started) * rate)
            for _ in range(due - made):
                group.create_task(traffic.one(address, limit), name="connection")
            made = due
            await asyncio.sleep(1 / 100)


async def _watch(traffic: Traffic, program: Program, upstream: str) -> None:
    while True:
        seen = await asyncio.to_thread(program.get, f"/api/v1/upstreams/{upstream}")
        traffic.look(seen["endpoints_eligible"])
        await asyncio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def flowing(program: Program, *, upstream: str = "up", rate: float = RATE) -> AsyncIterator[Traffic]:
    """Traffic through the listener `in` for as long as the block lasts. What is under way at its end is cut and counts as neither."""
    traffic = Traffic()
    address = await asyncio.to_thread(program.address)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_flow(traffic, address, rate), name="traffic"),
            group.create_task(_watch(traffic, program, upstream), name="eye on the upstream"),
        ]
        try:
            yield traffic
        finally:
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def all_served(program: Program, *, upstream: str = "up") -> AsyncIterator[Traffic]:
    """As `flowing`, where nothing may fail, and the upstream never be empty."""
    async with flowing(program, upstream=upstream) as traffic:
        yield traffic
    assert traffic.failures == []
    assert traffic.done
    assert traffic.fewest
