"""A strategy that is told what differs keeps its promises as one that is built anew does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Snapshot, Strategy
from lbproxy.strategies.least_connection import LeastConnection, LeastOfDraws
from lbproxy.strategies.random_two import RandomTwo
from lbproxy.strategies.round_robin import RoundRobin
from tests.strategies.fleet import fleet

STRATEGIES: list[Callable[[], Strategy]] = [RoundRobin, LeastConnection, lambda: LeastOfDraws(2), RandomTwo]
IDS = ["round_robin", "least_connection", "least_of_draws", "random"]
NUMBERS = st.integers(0, 7)
Step = st.tuples(st.sets(NUMBERS), st.dictionaries(NUMBERS, st.integers(1, 4)), st.integers(0, 12))


class Upstream:
    """The part of a pool that a strategy sees: endpoints with weights, in an order that newcomers join at its end."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.all = fleet(8)
        self.members: dict[Endpoint, int] = {}
        self.snapshot = Snapshot((), ())
        self.rng = random.Random(1)
        strategy.rebuild(self.snapshot)

    def change(self, gone: set[int], came: dict[int, int]) -> None:
        left = [self.all[number] for number in gone - came.keys() if self.all[number] in self.members]
        for endpoint in left:
            del self.members[endpoint]
        told = []
        for number, weight in came.items():
            endpoint = self.all[number]
            endpoint.weight = weight
            if self.members.get(endpoint) != weight:
                told.append(endpoint)
            self.members[endpoint] = weight
        self.snapshot = Snapshot(tuple(self.members), tuple(self.members.values()))
        self.strategy.update(self.snapshot, left, told)

    def pick(self) -> Endpoint | None:
        context = Context(0.0, self.rng, "192.0.2.1")
        picked = self.strategy.pick(self.snapshot, context)
        if picked is not None:
            picked.active += 1
            self.strategy.acquired(picked)
        return picked


@pytest.mark.parametrize("make", STRATEGIES, ids=IDS)
@given(steps=st.lists(Step, max_size=12))
def test_only_members_are_picked_and_always_one(
    make: Callable[[], Strategy], steps: list[tuple[set[int], dict[int, int], int]]
) -> None:
    of = Upstream(make())
    for gone, came, picks in steps:
        of.change(gone, came)
        for _ in range(picks):
            picked = of.pick()
            assert (picked in of.members) if of.members else picked is None


@given(steps=st.lists(Step, max_size=8), came=st.dictionaries(NUMBERS, st.integers(1, 4), min_size=1))
def test_round_robin_is_exact_over_a_cycle_soon_after_a_change(
    steps: list[tuple[set[int], dict[int, int], int]], came: dict[int, int]
) -> None:
    of = Upstream(RoundRobin())
    for gone, more, picks in steps:
        of.change(gone, more)
        for _ in range(picks):
            of.pick()
    of.change(set(), came)
    total = sum(of.members.values())
    for _ in range(4 * total):  # what earlier turns are owed is paid by then
        of.pick()
    counts = Counter(of.pick() for _ in range(total))
    for endpoint, weight in of.members.items():
        assert abs(counts[endpoint] - weight) <= 1


@given(steps=st.lists(Step, min_size=1, max_size=8))
def test_least_connection_picks_the_least_loaded_after_any_changes(
    steps: list[tuple[set[int], dict[int, int], int]],
) -> None:
    of = Upstream(LeastConnection())
    for gone, came, picks in steps:
        of.change(gone, came)
        for _ in range(picks):
            loads = {each: (each.active + 1) / weight for each, weight in of.members.items()}
            picked = of.pick()
            if picked is not None:
                assert loads[picked] == min(loads.values())


def test_newcomers_of_least_connection_come_first_among_equals_in_their_order() -> None:
    of = Upstream(LeastConnection())
    of.change(set(), {0: 1, 1: 1})
    of.change(set(), {2: 1, 3: 1})
    of.change(set(), {4: 1})
    assert [of.all.index(picked) for _ in range(5) if (picked := of.pick())] == [4, 2, 3, 0, 1]
