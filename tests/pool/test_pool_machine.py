"""Whatever happens to a pool, in whatever order: counts balance, and only what may be picked is picked."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lbproxy.domain.address import ip_address
from lbproxy.domain.effects import EndpointAdded, EndpointForgotten
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.errors import ConnectFailure
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.strategies.registry import make

MEMBERS = st.lists(
    st.builds(
        lambda port, weight, priority, limit: Member(
            ip_address("10.0.0.1", port), weight=weight, priority=priority, max_connections=limit
        ),
        st.integers(1, 6),
        st.integers(0, 5),
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, 3)),
    ),
    max_size=6,
)
STRATEGIES = st.sampled_from(
    [
        StrategyOptions("round_robin"),
        StrategyOptions("least_connection"),
        StrategyOptions("least_connection", choices=2),
        StrategyOptions("random"),
    ]
)
LABELS = st.integers(1, 6).map(lambda port: f"10.0.0.1:{port}")


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(PoolOptions("web"), lambda options: make(options.type, options.choices))
        self.rng = random.Random(0)
        self.now = 0.0
        self.leases: list[Lease] = []
        self.added: set[Endpoint] = set()

    def absorb(self, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, EndpointAdded):
                assert effect.endpoint not in self.added
                self.added.add(effect.endpoint)
            elif isinstance(effect, EndpointForgotten):
                assert effect.endpoint.active == 0
                self.added.remove(effect.endpoint)

    @rule(members=MEMBERS)
    def membership(self, members: list[Member]) -> None:
        self.absorb([*self.pool.apply_membership(Membership(tuple(members)), self.now)])

    @rule(strategy=STRATEGIES)
    def reconfigure(self, strategy: StrategyOptions) -> None:
        self.absorb([*self.pool.reconfigure(PoolOptions("web", strategy=strategy), self.now)])

    @rule(tries=st.integers(0, 4))
    def session(self, tries: int) -> None:
        """A session whose first dials fail."""
        context = Context(self.now, self.rng, "")
        for attempt in range(tries + 1):
            eligible = [e for e in self.pool.endpoints() if not e.ineligible]
            possible = [e for e in eligible if not e.full and e not in context.tried]
            lease = self.pool.acquire(context)
            if isinstance(lease, Exhausted):
                assert not possible
                assert (lease is Exhausted.NO_ENDPOINT) == (not eligible)
                return
            # `full` was judged before the choice was counted.
            assert lease.endpoint in possible
            if attempt < tries:
                lease.release()
                self.absorb([*self.pool.dial_failed(lease.endpoint, ConnectFailure.REFUSED, self.now)])
                context.tried = (*context.tried, lease.endpoint)
            else:
                self.absorb([*self.pool.connected(lease.endpoint, 0.001, self.now)])
                self.leases.append(lease)

    @rule(which=st.integers(0, 999))
    def end(self, which: int) -> None:
        if self.leases:
            lease = self.leases.pop(which % len(self.leases))
            lease.release()
            lease.release()

    @rule(label=LABELS, deadline_s=st.one_of(st.none(), st.floats(0, 100)), undo=st.booleans())
    def drain(self, label: str, deadline_s: float | None, undo: bool) -> None:
        if label in {endpoint.label for endpoint in self.pool.endpoints()}:
            effects = (
                self.pool.undrain(label, self.now) if undo else self.pool.drain(label, self.now, deadline_s)
            )
            self.absorb([*effects])

    @rule(undo=st.booleans())
    def drain_all(self, undo: bool) -> None:
        self.absorb([*(self.pool.undrain_all(self.now) if undo else self.pool.drain_all(self.now))])

    @rule(label=LABELS, weight=st.one_of(st.none(), st.integers(0, 9)))
    def weigh(self, label: str, weight: int | None) -> None:
        if label in {endpoint.label for endpoint in self.pool.endpoints()}:
            self.absorb([*self.pool.set_weight(label, weight, self.now)])

    @rule(passed_s=st.floats(0, 5000))
    def advance(self, passed_s: float) -> None:
        self.now += passed_s
        effects, due = self.pool.advance(self.now)
        self.absorb([*effects])
        assert due is None or due > self.now

    @invariant()
    def counts_balance(self) -> None:
        active: dict[Endpoint, int] = {}
        for lease in self.leases:
            active[lease.endpoint] = active.get(lease.endpoint, 0) + 1
        for endpoint in self.pool.endpoints():
            assert endpoint.active == active.pop(endpoint, 0)
        assert not active, "a session's endpoint was forgotten"

    @invariant()
    def everything_known_was_announced(self) -> None:
        assert set(self.pool.endpoints()) == self.added
        assert self.pool.usable == sum(not endpoint.ineligible for endpoint in self.pool.endpoints())


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
