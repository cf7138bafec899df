"""One source that is being followed: its task, the wall around it, and what it said last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lbproxy.app.registries import Means, make_registry
from lbproxy.discovery.contract import Source
from lbproxy.discovery.follow import FollowedSource
from lbproxy.discovery.options import DiscoveryOptions, StaticEndpoint
from lbproxy.discovery.push.leases import Leases
from lbproxy.discovery.snapshots import Snapshots
from lbproxy.discovery.static import StaticSource
from lbproxy.domain.address import Address
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.effects import Effect
from lbproxy.domain.errors import RegistryError, ResolveError
from lbproxy.domain.membership import Difference, Member, Membership
from lbproxy.domain.strategy import Random
from lbproxy.proxy.complaints import Complaints
from lbproxy.wire.http import HttpClient
from lbproxy.wire.resolver import Resolution

logger = logging.getLogger("lbproxy.discovery")

RESTART: Final = Backoff(base_s=1.0, cap_s=30.0, floor_s=0.5)

SourceOptions = DiscoveryOptions | tuple[StaticEndpoint, ...]
"""What a source is made from: a registry's options, or the endpoints in the configuration itself."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What all upstreams' sources share. `is_own` tells whether an address is one of our own listeners', which nobody may dial; `is_admin`
    whether it is one of the admin interface's, which a configuration may name, and a registry may not. `snapshots` is None where
    no state is kept."""

    group: asyncio.TaskGroup
    apply: Callable[[Sequence[Effect]], None]
    resolve: Callable[[str], Awaitable[Resolution]]
    is_own: Callable[[Address], bool]
    clock: Callable[[], float]
    rng: Random
    is_admin: Callable[[Address], bool] = lambda _: False
    snapshots: Snapshots | None = None
    http: HttpClient = field(default_factory=HttpClient)

    def is_ours(self, address: Address) -> bool:
        """Whether discovered data must not lead there."""
        return self.is_own(address) or self.is_admin(address)

    def remembers(self, upstream: str, source: str) -> bool:
        """Whether the disk knows endpoints of that source."""
        return self.snapshots is not None and self.snapshots.exists(upstream, source)

    def means(self, leases: Leases) -> Means:
        """What the registries of the upstream with these leases work with."""
        return Means(self.http, self.clock, asyncio.sleep, self.rng, leases)


class Following:
    """Owns the source's task from `start` to `stop`. `changed` is called with itself whenever `membership` is another one,
    and with how it differs where the source knows."""

    def __init__(
        self,
        upstream: str,
        options: SourceOptions,
        sources: Sources,
        changed: Callable[[Following, Difference | None], None],
        failed: Callable[[Exception], None],
        is_down: Callable[[Address], bool],
        leases: Leases,
        predecessor: Following | None,
    ) -> None:
        self.options = options
        self.upstream = upstream
        self._sources = sources
        self._changed = changed
        self._by_address: dict[Address, Member] | None = None  # made when first asked for
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        before = None if predecessor is None else predecessor.source
        if isinstance(options, DiscoveryOptions):
            self.source: Source = FollowedSource(
                upstream,
                options,
                make_registry(options.registry, sources.means(leases)),
                self._report,
                failed,
                clock=sources.clock,
                sleep=asyncio.sleep,
                wall=time.time,
                rng=sources.rng,
                resolve=sources.resolve,
                is_own=sources.is_ours,
                is_down=is_down,
                snapshots=sources.snapshots,
                predecessor=before if isinstance(before, FollowedSource) else None,
            )
        else:
            self.source = StaticSource(
                upstream,
                options,
                sources.resolve,
                self._report,
                failed,
                sources.clock,
                asyncio.sleep,
                sources.rng,
                before.known if isinstance(before, StaticSource) else {},
            )
        self.membership: Membership | None = self.source.initial()

    @property
    def spoken(self) -> bool:
        """Whether what it has in force is its own word, so that it can take the place of a source that a reload took away."""
        if self.membership is None or self.source.status.unverified:
            return False
        return bool(self.membership.members) or self.source.refreshed_at is not None

    def find(self, address: Address) -> Member | None:
        """What it says of an address, if it names it."""
        if self._by_address is None:
            members = () if self.membership is None else self.membership.members
            self._by_address = {member.address: member for member in members}
        return self._by_address.get(address)

    def start(self) -> None:
        source = self.source
        name = f"discovery {self.upstream} {source.name} wall"
        self._task = self._sources.group.create_task(self._follow(source), name=name)

    def stop(self) -> None:
        """What is known stays. An answer on its way is no longer heard: it speaks for what is not configured any more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _report(self, membership: Membership, difference: Difference | None) -> None:
        if not self._stopped:
            self.membership = membership
            if difference is None:
                self._by_address = None
            elif self._by_address is not None:
                self._by_address.update((member.address, member) for member in difference.told)
                for address in difference.gone:
                    self._by_address.pop(address, None)
            self._changed(self, difference)

    async def _follow(self, source: Source) -> None:
        """The wall around a source: a defect is logged and the source started again, later and later."""
        attempt = 0
        while True:
            try:
                await source.run()
            except Exception:
                logger.exception("upstream %s: source %s failed", self.upstream, source.name)
                await asyncio.sleep(RESTART.wait_s(attempt, self._sources.rng))
                attempt += 1
            else:
                return


def complain(complaints: Complaints, upstream: str, error: Exception, known: int, now: float) -> None:
    """A source's foreseen error, said once in a while: once for a source, or for a name in the configuration, whatever words a registry
    finds each time."""
    after = "what was known stays" if known else "it has no endpoint yet"
    if isinstance(error, RegistryError) and error.retry_after_s is not None:
        after = f"{after}; next try in {error.retry_after_s:.1f} s"
    subject = error.name if isinstance(error, ResolveError) else str(error).partition(":")[0]
    complaints.say(logging.WARNING, subject, f"upstream {upstream}: {error}; {after}", now)
