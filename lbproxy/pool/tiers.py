"""Tiers: the eligible endpoints of one priority, as an immutable snapshot with the strategy that chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

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
        full = [each for each in snapshot.endpoints if each.max_connections is not None and each.full]
        self.room = len(snapshot.endpoints) - len(full)


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


def change(
    before: Tiers,
    touched: Collection[Endpoint],
    make_strategy: Callable[[], Strategy],
    *,
    limits_changed: bool,
) -> Tiers:
    """As `build`, where only `touched` may differ in anything. Those that stay keep their places, newcomers stand behind them. A tier
    in which nothing differs stays the same object."""
    groups: dict[int, list[Endpoint]] = {}
    for endpoint in touched:
        if not endpoint.ineligible:
            groups.setdefault(endpoint.priority, []).append(endpoint)
    old = {tier.priority: tier for tier in before}
    everyone = set(touched)
    found = []
    for priority in sorted(old.keys() | groups.keys()):
        known = old.get(priority)
        wanted = groups.get(priority, [])
        if known is None:
            snapshot = Snapshot(tuple(wanted), tuple([each.weight for each in wanted]))
            strategy = make_strategy()
            strategy.rebuild(snapshot)
            found.append(Tier(priority, snapshot, strategy))
        else:
            changed = _changed(known, everyone, wanted, limits_changed=limits_changed)
            if changed is not None:
                found.append(changed)
    return tuple(found)


def _changed(
    known: Tier, everyone: set[Endpoint], wanted: list[Endpoint], *, limits_changed: bool
) -> Tier | None:
    """One tier after the change; None if nobody is left in it."""
    was = known.snapshot
    here = everyone.intersection(was.endpoints)
    if not here and not wanted:
        return known
    staying = here.intersection(wanted)
    gone = here - staying
    weight_before = {
        each: weight for each, weight in zip(was.endpoints, was.weights, strict=True) if each in staying
    }
    came = [each for each in wanted if weight_before.get(each) != each.weight]
    endpoints = [each for each in was.endpoints if each not in gone] if gone else list(was.endpoints)
    endpoints += [each for each in wanted if each not in staying]
    if not endpoints:
        return None
    snapshot = Snapshot(tuple(endpoints), tuple([each.weight for each in endpoints]))
    if limits_changed:
        known.strategy.rebuild(snapshot)
    elif gone or came:
        known.strategy.update(snapshot, gone, came)
    return Tier(known.priority, snapshot, known.strategy)
