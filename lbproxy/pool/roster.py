"""The roster: every endpoint an upstream knows, one object an address from its first mention until it is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lbproxy.domain.address import Address
from lbproxy.domain.effects import Effect, EndpointAdded, Notice
from lbproxy.domain.endpoint import Endpoint, Ineligible
from lbproxy.domain.membership import Difference, Member
from lbproxy.pool.overrides import Overrides

# A removed endpoint's counters stay readable for the usual window of rate() in Prometheus, so that their end is seen.
FORGET_AFTER_S: Final = 300.0
# A removed endpoint that still has sessions then is looked at again this often: sessions end without telling a timer.
LINGER_CHECK_S: Final = 60.0
NAMED: Final = 3  # endpoints of each sort that a log line about a change names


@dataclass(slots=True)
class Change:
    """What one membership changed: the effects, whether picks are concerned at all, whether a limit differs, and whom it touched."""

    effects: list[Effect] = field(default_factory=list)
    any: bool = False
    limits: bool = False
    touched: list[Endpoint] = field(default_factory=list)
    added: list[Endpoint] = field(default_factory=list)
    changed: list[tuple[Endpoint, Member]] = field(default_factory=list)  # with what was said of it before


class Roster:
    """Keeps each endpoint's member, weight in force and the flags DRAINED, REMOVED and WEIGHT_ZERO; leaves others alone.

    Keys of operators are labels. Raises KeyError for one that belongs to no endpoint and has no override either.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._members: tuple[Member, ...] | None = ()  # as last applied; None after a difference
        self._by_address: dict[Address, Endpoint] = {}
        self._by_label: dict[str, Endpoint] = {}
        self._removed: dict[Address, Endpoint] = {}
        self._told_to_end: set[Address] = set()  # removed ones whose deadline has passed
        self._overrides = Overrides()
        self.drained = False  # as a whole: endpoints that appear now are drained, too
        self._drained_due: float | None = None

    def find(self, address: Address) -> Endpoint | None:
        return self._by_address.get(address)

    def endpoints(self) -> Sequence[Endpoint]:
        """The current ones, then those removed of late."""
        current = [each for each in self._by_address.values() if each.removed_at is None]
        return [*current, *self._removed.values()]

    def apply(self, members: tuple[Member, ...], now: float, label: str | None = None) -> Change:
        """Take `members` (one an address) as all there is. `label` names new endpoints other than by their address."""
        change = Change()
        if members == self._members:
            return change
        change.any = True
        before = self._by_address
        current: dict[Address, Endpoint] = {}
        for member in members:
            current[member.address] = self._take_in(member, change, label)
        gone = [endpoint for address, endpoint in before.items() if address not in current]
        left = [endpoint for endpoint in gone if endpoint.removed_at is None]
        for endpoint in left:
            self._remove(endpoint, now)
        for endpoint in gone:
            current[endpoint.address] = endpoint
        self._members = members
        self._by_address = current
        self._tell(change, left, len(members))
        return change

    def apply_difference(self, difference: Difference, now: float) -> Change:
        """As `apply` of a membership that differs so from the last one. Newcomers stand behind those that stay."""
        change = Change(any=True)
        self._members = None
        for member in difference.told:
            self._by_address[member.address] = self._take_in(member, change, None)
        named = [self._by_address.get(address) for address in difference.gone]
        left = [endpoint for endpoint in named if endpoint is not None and endpoint.removed_at is None]
        for endpoint in left:
            self._remove(endpoint, now)
        change.touched += left
        self._tell(change, left, len(self._by_address) - len(self._removed))
        return change

    def _take_in(self, member: Member, change: Change, label: str | None) -> Endpoint:
        endpoint = self._by_address.get(member.address)
        if endpoint is None:
            endpoint = Endpoint(member, label)
            self._by_label[endpoint.label] = endpoint
            change.effects.append(EndpointAdded(self._upstream, endpoint))
            self._settle_in(endpoint)
            change.added.append(endpoint)
        elif endpoint.removed_at is not None:
            change.limits |= self._update(endpoint, member)
            self._settle_in(endpoint)
            change.added.append(endpoint)
        elif endpoint.member is not member and endpoint.member != member:
            change.changed.append((endpoint, endpoint.member))
            change.limits |= self._update(endpoint, member)
        else:
            return endpoint
        change.touched.append(endpoint)
        return endpoint

    def _tell(self, change: Change, left: Sequence[Endpoint], number: int) -> None:
        if change.added or change.changed or left:
            added = _counted("added", [each.label for each in change.added[:NAMED]], len(change.added))
            removed = _counted("removed", [each.label for each in left[:NAMED]], len(left))
            changed = [_differs(endpoint, before) for endpoint, before in change.changed[:NAMED]]
            told = _counted("changed", changed, len(change.changed))
            message = f"endpoints: {added}, {removed}, {told}, {number} in all"
            change.effects.append(Notice(self._upstream, "membership_changed", message))

    def drain(self, key: str, due: float | None) -> None:
        endpoint = self._find(key)
        self._overrides.drain(key, due)
        self._overridden(key, endpoint)

    def undrain(self, key: str) -> None:
        endpoint = self._find(key)
        self._overrides.undrain(key)
        self._overridden(key, endpoint)

    def drain_all(self, due: float | None) -> None:
        """Drain every endpoint there is, and every one that appears until `undrain_all`."""
        self.drained = True
        self._drained_due = due
        for endpoint in self._by_label.values():
            self._drain_along(endpoint)

    def undrain_all(self) -> None:
        """Lift every drain, also those of single endpoints."""
        self.drained = False
        self._drained_due = None
        for label, endpoint in self._by_label.items():
            self._overrides.undrain(label)
            self._overridden(label, endpoint)
        self._overrides.undrain_rest()

    def _drain_along(self, endpoint: Endpoint) -> None:
        """An earlier deadline of its own stands; none, or a later one, gives way."""
        override, due = self._overrides.get(endpoint.label), self._drained_due
        if not override.drained or (
            due is not None and (override.drain_due is None or due < override.drain_due)
        ):
            self._overrides.drain(endpoint.label, due)
            self._overridden(endpoint.label, endpoint)

    def set_weight(self, key: str, weight: int | None) -> None:
        endpoint = self._find(key)
        self._overrides.set_weight(key, weight)
        self._overridden(key, endpoint)

    def due_drains(self, now: float) -> list[Endpoint]:
        """Endpoints whose drain deadline has passed with sessions left, each named once."""
        found = [self._by_label.get(label) for label in self._overrides.take_due_drains(now)]
        return [endpoint for endpoint in found if endpoint is not None and endpoint.active]

    def due_removals(self, now: float, deadline_s: float | None) -> list[Endpoint]:
        """Removed endpoints with sessions left `deadline_s` after their removal, each named once a removal."""
        if deadline_s is None:
            return []
        due = [
            each
            for address, each in self._removed.items()
            if address not in self._told_to_end and (each.removed_at or 0.0) + deadline_s <= now
        ]
        self._told_to_end.update(each.address for each in due)
        return [each for each in due if each.active]

    def forget(self, now: float) -> list[Endpoint]:
        """Drop, and return, what was removed long ago and has no session left; and overrides of what is gone for longer."""
        for label in self._overrides.purge(now):
            endpoint = self._by_label.get(label)
            if endpoint is not None:
                self._refresh(endpoint)
        forgotten = [e for e in self._removed.values() if not e.active and _forget_due(e) <= now]
        for endpoint in forgotten:
            del self._removed[endpoint.address]
            self._told_to_end.discard(endpoint.address)
            del self._by_address[endpoint.address]
            del self._by_label[endpoint.label]
        return forgotten

    def next_due(self, now: float, deadline_s: float | None) -> float | None:
        times = [
            max(_forget_due(e), now + LINGER_CHECK_S if e.active else now) for e in self._removed.values()
        ]
        if deadline_s is not None:
            times += [
                (each.removed_at or 0.0) + deadline_s
                for address, each in self._removed.items()
                if address not in self._told_to_end
            ]
        override_due = self._overrides.next_due()
        if override_due is not None:
            times.append(override_due)
        return min(times, default=None)

    def _find(self, key: str) -> Endpoint | None:
        """None for an endpoint that was forgotten while its override is kept."""
        endpoint = self._by_label.get(key)
        if endpoint is None and key not in self._overrides:
            raise KeyError(key)
        return endpoint

    def _overridden(self, key: str, endpoint: Endpoint | None) -> None:
        if endpoint is not None:
            if endpoint.removed_at is not None:
                self._overrides.disappeared(key, endpoint.removed_at)
            self._refresh(endpoint)

    def _settle_in(self, endpoint: Endpoint) -> None:
        """New, or back after a removal."""
        self._removed.pop(endpoint.address, None)
        self._told_to_end.discard(endpoint.address)
        self._overrides.appeared(endpoint.label)
        endpoint.removed_at = None
        endpoint.ineligible &= ~Ineligible.REMOVED
        self._refresh(endpoint)
        if self.drained:
            self._drain_along(endpoint)

    def _remove(self, endpoint: Endpoint, now: float) -> None:
        endpoint.removed_at = now
        endpoint.ineligible |= Ineligible.REMOVED
        self._removed[endpoint.address] = endpoint
        self._overrides.disappeared(endpoint.label, now)

    def _update(self, endpoint: Endpoint, member: Member) -> bool:
        """Take what the source says now; whether the limit differs."""
        limit_differs = endpoint.max_connections != member.max_connections
        endpoint.member = member
        endpoint.priority = member.priority
        endpoint.max_connections = member.max_connections
        self._refresh(endpoint)
        return limit_differs

    def _refresh(self, endpoint: Endpoint) -> None:
        """Weight in force (the operator's before the member's) and the flags that follow from it and from the override."""
        override = self._overrides.get(endpoint.label)
        endpoint.weight_override = override.weight
        endpoint.weight = endpoint.member.weight if override.weight is None else override.weight
        flags = endpoint.ineligible & ~(Ineligible.DRAINED | Ineligible.WEIGHT_ZERO)
        if override.drained:
            flags |= Ineligible.DRAINED
        if endpoint.weight == 0:
            flags |= Ineligible.WEIGHT_ZERO
        endpoint.ineligible = flags


def _counted(what: str, named: Sequence[str], number: int) -> str:
    """A number, and the first of those it counts."""
    if not named:
        return f"{number} {what}"
    rest = f" and {number - len(named)} more" if number > len(named) else ""
    return f"{number} {what} ({', '.join(named)}{rest})"


def _differs(endpoint: Endpoint, before: Member) -> str:
    """Which of its attributes differ. Texts of a registry are not repeated."""
    now = endpoint.member
    pairs = (
        ("weight", before.weight, now.weight),
        ("priority", before.priority, now.priority),
        ("max_connections", before.max_connections, now.max_connections),
    )
    words = [f"{name} {old} to {new}" for name, old, new in pairs if old != new]
    words += [name for name in ("zone", "metadata") if getattr(before, name) != getattr(now, name)]
    if before.unverified and not now.unverified:
        words.append("verified")
    return f"{endpoint.label}: {' and '.join(words)}" if words else endpoint.label


def _forget_due(endpoint: Endpoint) -> float:
    return (endpoint.removed_at or 0.0) + FORGET_AFTER_S
