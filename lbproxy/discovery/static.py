"""The source of endpoints that stand in the configuration: addresses as they are, names resolved again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from lbproxy.discovery.contract import Failed, Report, SourceStatus
from lbproxy.discovery.names import NameTable
from lbproxy.discovery.options import StaticEndpoint
from lbproxy.domain.errors import ResolveError
from lbproxy.domain.membership import Membership
from lbproxy.domain.strategy import Random
from lbproxy.wire.resolver import Resolution

_log = logging.getLogger(__name__)
_NOTHING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class StaticSource:
    """A `Source`. Addresses are known at once; each name is followed by a task of its own within `run`.

    `resolve` raises ResolveError. `known` are a predecessor's `known` addresses (a reload that changed the upstream): without
    them, its named endpoints would be gone until the first answers.
    """

    name = "static"

    def __init__(
        self,
        upstream: str,
        endpoints: tuple[StaticEndpoint, ...],
        resolve: Callable[[str], Awaitable[Resolution]],
        report: Report,
        failed: Failed,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: Random,
        known: Mapping[str, tuple[str, ...]] = _NOTHING,
    ) -> None:
        self.upstream = upstream
        self._table = NameTable(endpoints, rng, known)
        self._resolve = resolve
        self._report = report
        self._failed = failed
        self._clock = clock
        self._sleep = sleep
        self._started_at = clock()
        self._results = {"applied": 0, "unchanged": 0, "error": 0}
        self._error = ""

    @property
    def status(self) -> SourceStatus:
        """Counts answers about names."""
        since = self._started_at if self.refreshed_at is None else self.refreshed_at
        return SourceStatus(dict(self._results), max(0.0, self._clock() - since), error=self._error)

    async def obey(self) -> int:
        """Nothing is held here."""
        return 0

    @property
    def known(self) -> Mapping[str, tuple[str, ...]]:
        """Name -> last good addresses, for a successor."""
        return self._table.known

    @property
    def refreshed_at(self) -> float | None:
        """Without names: since this source exists."""
        return self._table.answered_at if self._table.names else self._started_at

    def initial(self) -> Membership:
        """The addresses, and those of names that are known already. Not reported: the caller applies it."""
        return self._table.membership

    async def run(self) -> None:
        """Report every change from `initial` on. Returns at once without names, else never."""
        async with asyncio.TaskGroup() as group:
            for name in self._table.names:
                group.create_task(self._follow(name), name=f"discovery static {self.upstream} {name}")

    async def _follow(self, name: str) -> None:
        while True:
            await self._sleep(await self._ask(name))

    async def _ask(self, name: str) -> float:
        """Ask once; in how many seconds to ask again."""
        try:
            resolution = await self._resolve(name)
        except ResolveError as error:
            wait_s = self._table.failed(name)
            self._results["error"] += 1
            self._error = str(error)
            self._failed(error)
            return wait_s
        changed, wait_s = self._table.answered(name, resolution, self._clock())
        self._results["applied" if changed else "unchanged"] += 1
        self._error = ""
        if changed and resolution.dropped:
            _log.warning("%s: %d addresses beyond the limit are not used", name, resolution.dropped)
        if changed:
            self._report(self._table.membership, None)
        return wait_s
