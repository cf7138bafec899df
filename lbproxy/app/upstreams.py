"""One upstream's live parts: its pool, how it is dialled, and the sources that fill it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from lbproxy.app.following import Following, SourceOptions, Sources, complain
from lbproxy.config.options import UpstreamOptions
from lbproxy.discovery.contract import Candidate, Source
from lbproxy.discovery.options import DiscoveryOptions
from lbproxy.discovery.push.leases import Leases, Target
from lbproxy.discovery.push.options import MOST_LEASES, PushOptions
from lbproxy.domain.address import Address
from lbproxy.domain.effects import EndpointForgotten
from lbproxy.domain.membership import Difference, Membership
from lbproxy.domain.strategy import Strategy
from lbproxy.pool.options import StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.proxy.complaints import Complaints
from lbproxy.strategies.registry import make

logger = logging.getLogger("lbproxy.discovery")


_PUSH: Final = DiscoveryOptions("push", PushOptions())
"""The source that every upstream has without a word about it."""


def source_names(options: UpstreamOptions) -> list[str]:
    """Of the sources that the upstream has, or may have, a state on disk of."""
    return list(dict.fromkeys((*(each.name for each in options.discovery), _PUSH.name)))


def make_strategy(options: StrategyOptions) -> Strategy:
    """What a pool asks for when its strategy is new or has changed."""
    return make(options.type, options.choices)


class Upstream:
    """`configure` may be called again and again; the pool, its counters and its endpoints stay."""

    def __init__(self, options: UpstreamOptions, sources: Sources) -> None:
        self.pool = Pool(options.pool, make_strategy)
        self.options = options
        self._sources = sources
        self._following: dict[str, Following] = {}  # in the order in which they are merged
        self._departed: dict[
            str, Following
        ] = {}  # what they said stands until those that replace them have spoken
        self._leases = Leases()  # of those that register by themselves
        self._complaints = Complaints(logger)
        self._refused: frozenset[Address] = frozenset()

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def sources(self) -> list[Source]:
        """In the order of precedence."""
        return [each.source for each in self._following.values()]

    def configure(self, options: UpstreamOptions) -> None:
        sources = self._sources
        now = sources.clock()
        sources.apply(self.pool.start(now))
        sources.apply(self.pool.reconfigure(options.pool, now))
        self.options = options
        if options.pool.kind != "original_dst":
            self._follow(dict(self._wanted()))

    def _wanted(self) -> Iterator[tuple[str, SourceOptions]]:
        """Each source by its name, in the order of precedence."""
        options = self.options
        if options.endpoints or not options.discovery:
            yield "static", options.endpoints
        for source in options.discovery:
            yield source.name, source
        pushed = next((each for each in options.discovery if each.registry == _PUSH.registry), None)
        self._leases.limit = MOST_LEASES if pushed is None else pushed.limit
        # Not followed before there is somebody: an upstream to which nobody pushes has no source that says nothing for ever. But
        # once it is, for good: what the guard holds is not lost by a reload.
        known = self._leases or _PUSH.name in self._following
        if pushed is None and (known or self._sources.remembers(self.name, _PUSH.name)):
            yield _PUSH.name, _PUSH

    def knows(self, source: str) -> bool:
        """Whether something is in force of the source of that name, so that another one in its place begins with that."""
        known = self._following.get(source) or self._departed.get(source)
        return known is not None and known.source.initial() is not None

    def is_own(self, address: Address) -> bool:
        """Whether it is one of our own listeners', which would be a loop, or leads to the admin interface."""
        return self._sources.is_ours(address)

    def register(self, target: Target, candidate: Candidate, lease_s: float) -> bool:
        """An endpoint comes by itself, or renews; True when it is new. Raises LeasesFullError."""
        new = self._leases.put(target, candidate, lease_s, self._sources.clock())
        if new and _PUSH.name not in self._following:
            self._follow(dict(self._wanted()))
        return new

    def deregister(self, target: Target) -> bool:
        """It leaves; False when it had not registered."""
        return self._leases.drop(target, self._sources.clock())

    def _follow(self, wanted: dict[str, SourceOptions]) -> None:
        before, self._following = self._following, {}
        new = []
        for name, options in wanted.items():
            known = before.get(name)
            if known is not None and known.options == options:
                self._following[name] = before.pop(name)
                continue
            made = Following(
                self.name,
                options,
                self._sources,
                self._changed,
                self._failed,
                self.pool.is_down,
                self._leases,
                known or self._departed.pop(name, None),
            )
            self._following[name] = made
            new.append(made)
        for name, gone in before.items():
            gone.stop()
            if name not in wanted:
                self._departed[name] = gone
        if new or before:
            self._merge()
        for made in new:
            made.start()

    def remove(self) -> None:
        """No longer configured: no new sessions; those that live go on."""
        self.stop_following()
        self._following, self._departed = {}, {}
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
        """End the sources' tasks; what is known stays."""
        for each in self._following.values():
            each.stop()

    def judge_again(self) -> None:
        """Our own addresses have changed: see again whether an endpoint is one of them."""
        self._merge()

    def _changed(self, who: Following, difference: Difference | None) -> None:
        """A source has reported. Mostly, what differs is all there is to do."""
        plain = not self._refused and not self._departed
        is_own = self._sources.is_own
        if difference is None or not plain or any(is_own(member.address) for member in difference.told):
            self._merge()
        else:
            merged = self._as_merged(who, difference)
            self._sources.apply(self.pool.apply_difference(merged, self._sources.clock()))

    def _as_merged(self, who: Following, difference: Difference) -> Difference:
        """What one source's difference is among all of them: an earlier one's word stands, a later one's comes up again."""
        everyone = list(self._following.values())
        if len(everyone) == 1:
            return difference
        at = everyone.index(who)
        earlier, later = everyone[:at], everyone[at + 1 :]
        told = [m for m in difference.told if not any(each.find(m.address) for each in earlier)]
        gone = []
        for address in difference.gone:
            if any(each.find(address) for each in earlier):
                continue
            heir = next((found for each in later if (found := each.find(address)) is not None), None)
            if heir is None:
                gone.append(address)
            else:
                told.append(heir)
        return Difference(tuple(told), tuple(gone))

    def _merge(self) -> None:
        """Bring what the sources say together: the first that names an address says what holds of it."""
        if all(each.spoken for each in self._following.values()):
            self._departed.clear()
        everyone = (*self._following.values(), *self._departed.values())
        told = [each.membership for each in everyone if each.membership is not None]
        if not told:
            return  # nobody has said anything yet, which is not the same as "there is nothing"
        merged = told[0] if len(told) == 1 else Membership.of(tuple(m for each in told for m in each.members))
        is_own = self._sources.is_own
        refused = frozenset(m.address for m in merged.members if is_own(m.address))
        for address in sorted(refused - self._refused):
            logger.error(
                "upstream %s: %s is one of our own listeners: refused, it would be a loop", self.name, address
            )
        self._refused = refused
        if refused:
            merged = Membership(tuple(m for m in merged.members if m.address not in refused))
        self._sources.apply(self.pool.apply_membership(merged, self._sources.clock()))

    def _failed(self, error: Exception) -> None:
        complain(self._complaints, self.name, error, len(self.pool.endpoints()), self._sources.clock())
