"""One upstream's endpoints: who exists, who is eligible, who gets the next session. Decides; `app` carries the effects out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from lbproxy.domain.address import Address
from lbproxy.domain.effects import CloseSessions, Effect, EndpointForgotten
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.errors import ConnectFailure
from lbproxy.domain.histogram import CONNECT_BOUNDS_S, Histogram
from lbproxy.domain.membership import MAX_WEIGHT, Difference, Member, Membership
from lbproxy.domain.session import EndReason
from lbproxy.domain.strategy import Context, Strategy
from lbproxy.pool import tiers
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.roster import Roster

# The one endpoint of an original_dst upstream stands for all destinations: its address is never dialled.
_ORIGINAL_DST: Final = Member(Address("0.0.0.0", 0, "inet"))  # noqa: S104 - nothing binds it
_ORIGINAL_DST_LABEL: Final = "original_dst"

# Failed dials in a row, without a success between them, that count as evidence against an endpoint.
DOWN_STREAK: Final = 3

MakeStrategy = Callable[[StrategyOptions], Strategy]


class Pool:
    """Synchronous, driven from the event loop, which is its only caller. `now` is monotonic seconds throughout.

    Effects are to be carried out before the next `acquire`: a new endpoint may be picked at once. After every call that
    takes `now`, `advance(now)` tells when time alone changes something next.
    """

    def __init__(self, options: PoolOptions, make_strategy: MakeStrategy) -> None:
        self.options = options
        self.attempts = 0  # dials begun
        self.waiting = 0  # sessions that pause before another dial; kept by the dialer
        self.connect_duration = Histogram(CONNECT_BOUNDS_S)
        self._make_strategy = make_strategy
        self._roster = Roster(options.name)
        self._original: Endpoint | None = None
        self._tiers: tiers.Tiers = ()
        self._usable = 0
        self._give_back: Callable[[Endpoint], None] = self._release  # bound once, not for every lease

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def usable(self) -> int:
        """How many endpoints are eligible, full or not."""
        return self._usable

    def endpoints(self) -> Sequence[Endpoint]:
        """The current ones in configured order, then those removed of late."""
        return self._roster.endpoints()

    def is_down(self, address: Address) -> bool:
        """Whether sessions have found the endpoint of this address dead, and nobody has reached it since."""
        endpoint = self._roster.find(address)
        return endpoint is not None and endpoint.failure_streak >= DOWN_STREAK

    def start(self, now: float) -> list[Effect]:
        """Once, before the first session, for every kind: an original_dst upstream gets its one endpoint here, others
        theirs by `apply_membership`."""
        if self.options.kind != "original_dst" or self._original is not None:
            return []
        effects = self._roster.apply((_ORIGINAL_DST,), now, label=_ORIGINAL_DST_LABEL).effects
        self._original = self._roster.endpoints()[0]
        self._publish()
        return effects

    def apply_membership(self, membership: Membership, now: float) -> list[Effect]:
        """Take a full answer. Endpoints that stay keep their object, counters and turn. Raises ValueError for an original_dst
        upstream, which has no members."""
        if self.options.kind == "original_dst":
            raise ValueError(f"upstream {self.name} is original_dst: it has no members")
        change = self._roster.apply(Membership.of(membership.members).members, now)
        if change.any:
            self._publish(limits_changed=change.limits)
        return change.effects

    def apply_difference(self, difference: Difference, now: float) -> list[Effect]:
        """As `apply_membership`, of an answer that differs so from the last one: what it costs is what differs, and a few passes over
        the rest at the machine's speed. Newcomers stand behind all others."""
        change = self._roster.apply_difference(difference, now)
        if change.touched:
            published = tiers.change(
                self._tiers, change.touched, self._new_strategy, limits_changed=change.limits
            )
            self._tiers = published
            self._usable = sum(len(tier.snapshot.endpoints) for tier in published)
        return change.effects

    def reconfigure(self, options: PoolOptions, now: float) -> list[Effect]:  # noqa: ARG002 - as all that changes it
        """Take new options. The strategy starts anew only when its own options differ. Raises ValueError when name or kind
        differ: that is another pool."""
        if (options.name, options.kind) != (self.options.name, self.options.kind):
            raise ValueError(f"upstream {self.name} cannot become {options.kind} {options.name}")
        anew = options.strategy != self.options.strategy
        self.options = options
        if anew:
            self._tiers = ()  # with the tiers go their strategies; leases find theirs at release
            self._publish()
        return []

    def acquire(self, context: Context) -> Lease | Exhausted:
        """Choose, and count at once. Tiers are asked in order; one whose endpoints are all ineligible, full or tried is passed
        over: being served by a backup beats being refused."""
        for tier in self._tiers:
            if tier.room:
                endpoint = tier.strategy.pick(tier.snapshot, context)
                if endpoint is not None:
                    endpoint.active += 1
                    if endpoint.active == endpoint.max_connections:
                        tier.room -= 1
                    tier.strategy.acquired(endpoint)
                    self.attempts += 1
                    return Lease(endpoint, endpoint.address, self._give_back)
        if self._original is not None:
            return self._acquire_original(self._original, context)
        if not self._usable:
            return Exhausted.NO_ENDPOINT
        for endpoint in context.tried:
            if not endpoint.ineligible and not endpoint.full:
                return Exhausted.TRIED
        return Exhausted.FULL

    def connected(self, endpoint: Endpoint, connect_s: float, now: float) -> list[Effect]:  # noqa: ARG002 - for breakers
        """A dial succeeded after `connect_s` seconds."""
        endpoint.total += 1
        endpoint.failure_streak = 0
        self.connect_duration.observe(connect_s)
        return []

    def dial_failed(self, endpoint: Endpoint, failure: ConnectFailure, now: float) -> list[Effect]:  # noqa: ARG002
        """A dial failed. What is our own fault is counted, and never held against the endpoint."""
        endpoint.connect_failures[failure] = endpoint.connect_failures.get(failure, 0) + 1
        if failure is not ConnectFailure.LOCAL:
            endpoint.failure_streak += 1
        return []

    def drain(self, key: str, now: float, deadline_s: float | None = None) -> list[Effect]:
        """No new sessions for the endpoint labelled `key`; those left `deadline_s` seconds from now are closed by `advance`,
        without a deadline never. Raises KeyError for a label unknown here."""
        self._roster.drain(key, None if deadline_s is None else now + deadline_s)
        self._publish()
        return []

    def undrain(self, key: str, now: float) -> list[Effect]:  # noqa: ARG002 - as its counterpart
        """Lift a drain, with its deadline. Raises KeyError for a label unknown here."""
        self._roster.undrain(key)
        self._publish()
        return []

    @property
    def drained(self) -> bool:
        """True from `drain_all` to `undrain_all`."""
        return self._roster.drained

    def drain_all(self, now: float, deadline_s: float | None = None) -> list[Effect]:
        """As `drain`, for every endpoint there is and every one that appears until `undrain_all`."""
        self._roster.drain_all(None if deadline_s is None else now + deadline_s)
        self._publish()
        return []

    def undrain_all(self, now: float) -> list[Effect]:  # noqa: ARG002 - as its counterpart
        """Lift every drain, also those of single endpoints."""
        self._roster.undrain_all()
        self._publish()
        return []

    def set_weight(self, key: str, weight: int | None, now: float) -> list[Effect]:  # noqa: ARG002 - for slow start
        """Override a weight; 0 means no new sessions, None lifts the override. Raises KeyError for a label unknown here and
        ValueError for a weight out of range."""
        if weight is not None and not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"weight {weight} is not within 0 and {MAX_WEIGHT}")
        self._roster.set_weight(key, weight)
        self._publish()
        return []

    def advance(self, now: float) -> tuple[list[Effect], float | None]:
        """Do what has become due, and tell when to come back (None: not for time alone)."""
        effects: list[Effect] = [
            CloseSessions(self.name, endpoint, EndReason.DRAINED) for endpoint in self._roster.due_drains(now)
        ]
        effects += [
            CloseSessions(self.name, endpoint, EndReason.DRAINED)
            for endpoint in self._roster.due_removals(now, self.options.removal_deadline_s)
        ]
        effects += [EndpointForgotten(self.name, endpoint) for endpoint in self._roster.forget(now)]
        return effects, self._roster.next_due(now, self.options.removal_deadline_s)

    def _acquire_original(self, endpoint: Endpoint, context: Context) -> Lease | Exhausted:
        """To where the client meant to go, and once: another try would go to the same place."""
        if endpoint.ineligible or context.destination is None or endpoint in context.tried:
            return Exhausted.NO_ENDPOINT
        endpoint.active += 1
        self.attempts += 1
        return Lease(endpoint, context.destination, self._give_back)

    def _release(self, endpoint: Endpoint) -> None:
        """The other half of `acquire`, whatever became of the endpoint and of the strategy that chose it."""
        endpoint.active -= 1
        if endpoint.ineligible:
            return  # in no tier
        for tier in self._tiers:
            if tier.priority == endpoint.priority:
                limit = endpoint.max_connections
                if limit is not None and endpoint.active == limit - 1:
                    tier.room += 1
                tier.strategy.released(endpoint)
                return

    def _publish(self, *, limits_changed: bool = False) -> None:
        """Make what the roster holds now the thing that is picked from: one assignment."""
        if self.options.kind == "original_dst":
            self._usable = int(self._original is not None and not self._original.ineligible)
            return
        published = tiers.build(
            self._roster.endpoints(), self._tiers, self._new_strategy, limits_changed=limits_changed
        )
        self._tiers = published
        self._usable = sum(len(tier.snapshot.endpoints) for tier in published)

    def _new_strategy(self) -> Strategy:
        return self._make_strategy(self.options.strategy)
