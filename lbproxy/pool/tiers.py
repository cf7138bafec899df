"""Tiers: the eligible endpoints of one priority, as an immutable snapshot with the strategy that chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Snapshot, Strategy


class Tier:
    """Never empty. `room` counts the endpoints of the snapshot that are not full: a live value beside it, kept by the pool,
    so that a tier in which all are full costs nothing to pass."""

    __slots__ = ("priority", "room", "snapshot", "strategy")

    def __init__(self, priority: int, snapshot: Snapshot, strategy: Strategy) -> None:
        self.priority = priority
        self.snapshot = snapshot
        self.strategy = strategy
        self.room = sum(not endpoint.full for endpoint in snapshot.endpoints)


Tiers = tuple[Tier, ...]


def build(
    endpoints: Iterable[Endpoint],
    before: Tiers,
    make_strategy: Callable[[], Strategy],
    *,
    limits_changed: bool,
) -> Tiers:
    """The tiers of what is eligible among `endpoints` (in configured order), first priority first.

    A priority that was there `before` keeps its strategy, and its tables as they are when nothing in it changed. Strategies
    that keep full endpoints apart are told of changed limits by a rebuild.
    """
    groups: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        if not endpoint.ineligible:
            groups.setdefault(endpoint.priority, []).append(endpoint)
    old = {tier.priority: tier for tier in before}
    tiers = []
    for priority in sorted(groups):
        members = tuple(groups[priority])
        snapshot = Snapshot(members, tuple([endpoint.weight for endpoint in members]))
        known = old.get(priority)
        strategy = make_strategy() if known is None else known.strategy
        if known is None or limits_changed or known.snapshot != snapshot:
            strategy.rebuild(snapshot)
        tiers.append(Tier(priority, snapshot, strategy))
    return tuple(tiers)
