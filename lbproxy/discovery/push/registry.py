"""The leases of an upstream as a registry: endpoints that came to us by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.push.leases import Leases

WELL_AGAIN_S: Final = 60.0  # as often it says that nothing has changed


class PushRegistry:
    """A `Registry`. `leases` belong to the caller and outlive it; one registry at a time follows them. `clock` and `sleep` are of one
    time, the one that the leases are put with."""

    def __init__(
        self, leases: Leases, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._sleep = sleep
        self._told: tuple[Candidate, ...] | None = None
        self._wake = asyncio.Event()
        leases.changed = self._wake.set

    async def next(self) -> Answer:
        """What has registered: at once, and then after each change; no error is possible."""
        self._leases.changed = self._wake.set
        deadline = self._clock() + WELL_AGAIN_S
        while self._told is not None:
            self._wake.clear()
            now = self._clock()
            self._leases.expire(now)
            if self._leases.candidates() is not self._told or now >= deadline:
                break
            due = self._leases.next_expiry()
            await self._until(deadline if due is None else min(due, deadline))
        return self._answer()

    async def confirm(self) -> Answer:
        """What has registered, now."""
        self._leases.expire(self._clock())
        return Answer(self._leases.candidates())

    async def close(self) -> None:
        """The leases stay; the next one tells them again."""
        self._told = None

    def _answer(self) -> Answer:
        self._leases.expire(self._clock())
        self._told = self._leases.candidates()
        forgotten, self._leases.fresh = self._leases.fresh, False
        return Answer(self._told, regressed=forgotten)

    async def _until(self, when: float) -> None:
        """Return at that time, or when the leases have changed."""
        async with asyncio.TaskGroup() as group:
            changed = group.create_task(self._wake.wait(), name="push: a change")
            due = group.create_task(self._slept(when), name="push: an expiry")
            await asyncio.wait((changed, due), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            due.cancel()

    async def _slept(self, when: float) -> None:
        await self._sleep(max(0.0, when - self._clock()))
