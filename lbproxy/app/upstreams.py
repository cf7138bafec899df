"""One upstream's live parts: its pool, how it is dialled, and the source that fills it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from lbproxy.config.options import UpstreamOptions
from lbproxy.discovery.static import StaticSource
from lbproxy.domain.address import Address
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.effects import Effect, EndpointForgotten
from lbproxy.domain.membership import Membership
from lbproxy.domain.strategy import Random, Strategy
from lbproxy.pool.options import StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.proxy.complaints import Complaints
from lbproxy.strategies.registry import make
from lbproxy.wire.resolver import Resolution

logger = logging.getLogger("lbproxy.discovery")

RESTART: Final = Backoff(base_s=1.0, cap_s=30.0, floor_s=0.5)


def make_strategy(options: StrategyOptions) -> Strategy:
    """What a pool asks for when its strategy is new or has changed."""
    return make(options.type, options.choices)


class Sources:
    """What all upstreams' sources share. `is_own` tells whether an address is one of our own listeners'."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        apply: Callable[[Sequence[Effect]], None],
        resolve: Callable[[str], Awaitable[Resolution]],
        is_own: Callable[[Address], bool],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self.group = group
        self.apply = apply
        self.resolve = resolve
        self.is_own = is_own
        self.clock = clock
        self.rng = rng


class Upstream:
    """`configure` may be called again and again; the pool, its counters and its endpoints stay."""

    def __init__(self, options: UpstreamOptions, sources: Sources) -> None:
        self.pool = Pool(options.pool, make_strategy)
        self.options = options
        self._sources = sources
        self._following: object | None = None  # what the present source's reports are known by
        self._source: StaticSource | None = None
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints(logger)
        self._refused: frozenset[Address] = frozenset()

    @property
    def name(self) -> str:
        return self.pool.name

    def configure(self, options: UpstreamOptions) -> None:
        sources = self._sources
        now = sources.clock()
        sources.apply(self.pool.start(now))
        sources.apply(self.pool.reconfigure(options.pool, now))
        if options.pool.kind == "original_dst":
            self.options = options
            return
        if self._source is None or options.endpoints != self.options.endpoints:
            known = self._source.known if self._source is not None else {}
            self.stop_following()
            following = self._following = object()

            def report(membership: Membership) -> None:
                # A cancelled source may have one more answer on its way; it speaks for what is no longer configured.
                if following is self._following:
                    self._report(membership)

            self._source = StaticSource(
                self.name,
                options.endpoints,
                sources.resolve,
                report,
                self._failed,
                sources.clock,
                asyncio.sleep,
                sources.rng,
                known,
            )
            self._report(self._source.initial())
            self._task = sources.group.create_task(self._follow(self._source), name=f"discovery {self.name}")
        self.options = options

    def remove(self) -> None:
        """No longer configured: no new sessions; those that live go on."""
        self.stop_following()
        self._source = None
        if self.options.pool.kind == "endpoints":
            self._sources.apply(self.pool.apply_membership(Membership(()), self._sources.clock()))

    def forget(self) -> bool:
        """Close the counter slots of an upstream that left the configuration. False while a session uses it, or while the series of
        its last endpoints are still shown."""
        endpoints = self.pool.endpoints()
        if any(endpoint.active for endpoint in endpoints):
            return False
        if endpoints and self.options.pool.kind == "endpoints":
            return False
        self._sources.apply([EndpointForgotten(self.name, endpoint) for endpoint in endpoints])
        return True

    def stop_following(self) -> None:
        """End the source's task; what is known stays."""
        self._following = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def judge_again(self) -> None:
        """Our own addresses have changed: see again whether an endpoint is one of them."""
        if self._source is not None:
            self._report(self._source.initial())

    def _report(self, membership: Membership) -> None:
        refused = frozenset(m.address for m in membership.members if self._sources.is_own(m.address))
        for address in sorted(refused - self._refused):
            logger.error(
                "upstream %s: %s is one of our own listeners: refused, it would be a loop", self.name, address
            )
        self._refused = refused
        kept = tuple(m for m in membership.members if m.address not in refused)
        self._sources.apply(self.pool.apply_membership(Membership(kept), self._sources.clock()))

    def _failed(self, error: Exception) -> None:
        known = len(self.pool.endpoints())
        after = "what was known stays" if known else "it has no endpoint yet"
        self._complaints.say(
            logging.WARNING, str(error), f"upstream {self.name}: {error}; {after}", self._sources.clock()
        )

    async def _follow(self, source: StaticSource) -> None:
        """The wall around a source: a defect is logged and the source started again, later and later."""
        attempt = 0
        while True:
            try:
                await source.run()
            except Exception:
                logger.exception("upstream %s: source %s failed", self.name, source.name)
                await asyncio.sleep(RESTART.wait_s(attempt, self._sources.rng))
                attempt += 1
            else:
                return
