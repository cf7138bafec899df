"""An agent that remembers what it was told, and fails, forgets or hangs as a test says."""

from __future__ import annotations

import asyncio

from lbproxy.domain.errors import RegistryError
from lbproxy.registration.contract import Forgotten
from lbproxy.registration.definition import Definition, Verdict
from tests.patience import WITHIN_S


class FakeAgent:
    """`told` holds every call by its kind and what it is about. `hang` set: calls do not return until it is cleared."""

    def __init__(self) -> None:
        self.services: dict[str, Definition] = {}
        self.said: dict[str, Verdict] = {}
        self.told: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.calm = asyncio.Event()
        self.calm.set()
        self.news = asyncio.Event()

    async def register(self, definition: Definition, verdict: Verdict) -> None:
        await self._called("register", definition.id)
        self.services[definition.id] = definition
        self.said[definition.check_id] = verdict

    async def update(self, check_id: str, verdict: Verdict) -> None:
        await self._called("update", check_id)
        if check_id not in self.said:
            raise Forgotten("unknown check")
        self.said[check_id] = verdict

    async def deregister(self, service_id: str) -> None:
        await self._called("deregister", service_id)
        found = self.services.pop(service_id, None)
        if found is None:
            raise Forgotten("unknown service")
        del self.said[found.check_id]

    async def _called(self, what: str, about: str) -> None:
        self.told.append((what, about))
        self.news.set()
        await self.calm.wait()
        if self.error is not None:
            raise self.error

    async def until(self, *told: tuple[str, str]) -> None:
        """Wait until the calls so far end with these."""
        async with asyncio.timeout(WITHIN_S):
            while tuple(self.told[-len(told) :]) != told:
                self.news.clear()
                await self.news.wait()

    def fail(self, text: str = "refused") -> None:
        self.error = RegistryError(text)

    def recover(self) -> None:
        self.error = None
