"""Virtual time and a scripted resolver: a source's whole life in no time at all."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from lbproxy.domain.errors import ResolveError
from lbproxy.wire.resolver import Resolution

# A turn of the loop for each step between a wake-up and the next sleep; more than any source here takes.
SETTLE_TURNS = 10


class VirtualTime:
    """`clock` and `sleep` for a source; `advance` lets the time pass, waking sleepers in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), woken))
        await woken

    @property
    def waits(self) -> list[float]:
        """How long each sleeper has still to sleep, in order."""
        return [when - self.now for when, _, woken in sorted(self._sleepers) if not woken.done()]

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, woken = heapq.heappop(self._sleepers)
            self.now = when
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self.now = end

    async def settle(self) -> None:
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)


Answer = Resolution | ResolveError | asyncio.Future[Resolution]


class ScriptedResolver:
    """`answers` says what each name resolves to now; `asked` what was asked, and when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[float, str]] = []
        self._clock = clock

    async def resolve(self, name: str) -> Resolution:
        self.asked.append((self._clock(), name))
        answer = self.answers[name]
        if isinstance(answer, ResolveError):
            raise answer
        return answer if isinstance(answer, Resolution) else await answer
