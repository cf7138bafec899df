"""Whatever happens in whatever order, the pool's books are right and its picks are allowed."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbproxy.domain.effects import CloseSessions, Effect, EndpointAdded, EndpointForgotten
from lbproxy.domain.endpoint import Endpoint, Ineligible
from lbproxy.domain.membership import Difference, Member, Membership
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from tests.pool.upstream import LEAST_CONNECTION, RANDOM, ROUND_ROBIN, label, make_strategy, member

STRATEGIES = st.sampled_from([ROUND_ROBIN, LEAST_CONNECTION, StrategyOptions("least_connection", 2), RANDOM])
NUMBERS = st.integers(1, 6)
MEMBERS = st.lists(
    st.builds(
        member,
        NUMBERS,
        weight=st.integers(0, 3),
        priority=st.integers(0, 1),
        limit=st.none() | st.integers(0, 2),
    ),
    max_size=6,
)


class AnyOrder(RuleBasedStateMachine):
    """A model that knows members, drains and weights by plain dictionaries, beside the pool."""

    @initialize(strategy=STRATEGIES)
    def begin(self, strategy: StrategyOptions) -> None:
        self.pool = Pool(PoolOptions("web", strategy=strategy), make_strategy)
        self.rng = random.Random(1)
        self.now = 0.0
        self.members: dict[str, Member] = {}
        self.known: set[Endpoint] = set()  # announced and not yet forgotten
        self.drained: set[str] = set()
        self.weights: dict[str, int] = {}
        self.live: list[Lease] = []
        self.over: list[Lease] = []
        self.picked = 0
        self.ordered = True  # as the last full answer was; a difference puts newcomers behind the others

    def take_in(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, EndpointAdded):
                assert effect.endpoint not in self.known
                self.known.add(effect.endpoint)
            elif isinstance(effect, EndpointForgotten):
                assert effect.endpoint.active == 0
                assert effect.endpoint.label not in self.members
                self.known.remove(effect.endpoint)
            elif isinstance(effect, CloseSessions):
                assert effect.endpoint.active > 0
                assert effect.endpoint.label in self.drained

    def eligible(self, endpoint: Endpoint) -> bool:
        told = self.members.get(endpoint.label)
        return (
            told is not None
            and endpoint.label not in self.drained
            and self.weights.get(endpoint.label, told.weight) > 0
        )

    @rule(members=MEMBERS)
    def apply_membership(self, members: list[Member]) -> None:
        membership = Membership(tuple(members))
        self.members = {str(m.address): m for m in Membership.of(membership.members).members}
        self.ordered = True
        self.take_in(self.pool.apply_membership(membership, self.now))

    @rule(members=MEMBERS)
    def apply_difference(self, members: list[Member]) -> None:
        wanted = {m.address: m for m in Membership.of(tuple(members)).members}
        before = {m.address: m for m in self.members.values()}
        told = tuple(m for address, m in wanted.items() if before.get(address) != m)
        gone = tuple(address for address in before if address not in wanted)
        self.members = {str(address): m for address, m in wanted.items()}
        self.ordered = False
        self.take_in(self.pool.apply_difference(Difference(told, gone), self.now))

    @rule(number=NUMBERS, deadline_s=st.none() | st.floats(0, 100))
    def drain(self, number: int, deadline_s: float | None) -> None:
        if any(e.label == label(number) for e in self.known):
            self.take_in(self.pool.drain(label(number), self.now, deadline_s))
            self.drained.add(label(number))

    @rule(number=NUMBERS)
    def undrain(self, number: int) -> None:
        if any(e.label == label(number) for e in self.known):
            self.take_in(self.pool.undrain(label(number), self.now))
            self.drained.discard(label(number))

    @rule(number=NUMBERS, weight=st.none() | st.integers(0, 4))
    def set_weight(self, number: int, weight: int | None) -> None:
        if any(e.label == label(number) for e in self.known):
            self.take_in(self.pool.set_weight(label(number), weight, self.now))
            self.weights.pop(label(number), None)
            if weight is not None:
                self.weights[label(number)] = weight

    @rule(strategy=STRATEGIES)
    def reconfigure(self, strategy: StrategyOptions) -> None:
        self.take_in(self.pool.reconfigure(PoolOptions("web", strategy=strategy), self.now))

    @rule(tried_numbers=st.sets(NUMBERS, max_size=3))
    def acquire(self, tried_numbers: set[int]) -> None:
        tried = [e for e in self.known if e.label in {label(number) for number in tried_numbers}]
        context = Context(self.now, self.rng, "192.0.2.1")
        context.tried = tried
        eligible = [e for e in self.known if self.eligible(e)]
        room = [e for e in eligible if not e.full]
        possible = [e for e in room if e not in tried]
        got = self.pool.acquire(context)
        if isinstance(got, Lease):
            self.picked += 1
            self.live.append(got)
            assert got.endpoint in possible
            assert got.endpoint.priority == min(e.priority for e in possible)
            assert got.address == got.endpoint.address
        else:
            assert not possible
            expected = Exhausted.NO_ENDPOINT if not eligible else Exhausted.TRIED if room else Exhausted.FULL
            assert got is expected

    @precondition(lambda self: bool(self.live))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        lease.release()
        self.over.append(lease)

    @precondition(lambda self: bool(self.over))
    @rule()
    def release_again(self) -> None:
        self.over[-1].release()

    # Below an hour in sum for one example, so that overrides hold throughout.
    @rule(seconds=st.sampled_from([0.0, 1.0, 50.0, 150.0]))
    def advance(self, seconds: float) -> None:
        if self.now < 3000.0:
            self.now += seconds
        effects, next_due = self.pool.advance(self.now)
        self.take_in(effects)
        assert next_due is None or next_due > self.now

    @invariant()
    def sessions_are_conserved(self) -> None:
        if hasattr(self, "pool"):
            held: dict[Endpoint, int] = {}
            for lease in self.live:
                held[lease.endpoint] = held.get(lease.endpoint, 0) + 1
            assert held.keys() <= self.known
            assert all(e.active == held.get(e, 0) for e in self.known)
            assert self.pool.attempts == self.picked == len(self.live) + len(self.over)

    @invariant()
    def the_list_is_what_is_known_and_says_what_holds(self) -> None:
        if hasattr(self, "pool"):
            listed = self.pool.endpoints()
            assert len(listed) == len(self.known)
            assert set(listed) == self.known
            current = [e.label for e in listed[: len(self.members)]]
            assert current == list(self.members) if self.ordered else set(current) == set(self.members)
            assert all((not e.ineligible) == self.eligible(e) for e in listed)
            assert self.pool.usable == sum(self.eligible(e) for e in listed)
            for e in listed:
                assert bool(e.ineligible & Ineligible.REMOVED) == (e.removed_at is not None)
                assert (e.removed_at is None) == (e.label in self.members)

    @invariant()
    def the_room_of_each_tier_is_counted_right(self) -> None:
        if hasattr(self, "pool"):
            for tier in self.pool._tiers:
                assert tier.room == sum(not e.full for e in tier.snapshot.endpoints)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase
