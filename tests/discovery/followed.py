"""A source on virtual time, with what it reported and the world around it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lbproxy.discovery.follow import FollowedSource
from lbproxy.discovery.options import DiscoveryOptions
from lbproxy.discovery.snapshots import Saved, Snapshots
from lbproxy.domain.address import Address
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import Membership
from tests.discovery.members import ScriptedRegistry, numbers
from tests.discovery.virtual import ScriptedResolver, VirtualTime
from tests.patience import WITHIN_S

ERROR = RegistryError("connection refused")


class Followed:
    """A source, what it reported, and the world around it."""

    def __init__(
        self, registry: ScriptedRegistry, snapshots: Snapshots | None = None, **options: Any
    ) -> None:
        self.time = VirtualTime()
        self.resolver = ScriptedResolver(self.time.clock)
        self.registry = registry
        self.reports: list[Membership] = []
        self.errors: list[str] = []
        self.own: set[Address] = set()
        self.down: set[Address] = set()
        predecessor = options.pop("predecessor", None)
        self.source = FollowedSource(
            "web",
            DiscoveryOptions("consul", None, **options),
            registry,
            lambda membership, _: self.reports.append(membership),
            lambda error: self.errors.append(str(error)),
            clock=self.time.clock,
            sleep=self.time.sleep,
            wall=lambda: 1_000_000.0 + self.time.now,
            rng=random.Random(1),
            resolve=self.resolver.resolve,
            is_own=self.own.__contains__,
            is_down=self.down.__contains__,
            snapshots=snapshots,
            predecessor=predecessor,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.source.run(), name="source")
            await self.time.settle()
            yield
            task.cancel()
        assert self.registry.closed == 1

    @property
    def last(self) -> list[int]:
        return numbers(self.reports[-1])


class Told(Snapshots):
    """Files are written in a thread: `tried` is set after each try."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tried = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def save(self, upstream: str, source: str, saved: Saved) -> None:
        try:
            super().save(upstream, source, saved)
        finally:
            self._loop.call_soon_threadsafe(self.tried.set)

    async def wait(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self.tried.wait()
