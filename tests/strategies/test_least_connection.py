"""Least connection: by a heap over all, and by a few draws."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbproxy.domain.endpoint import Endpoint
from lbproxy.strategies.least_connection import LeastConnection, LeastOfDraws
from tests.strategies.fleet import Driver, context, endpoint, fleet, scripted


def test_fewest_sessions_for_its_weight_wins() -> None:
    a, b = fleet(2)
    driver = Driver(LeastConnection(), [a, b], [3, 1])
    counts = Counter(driver.acquire(context()) for _ in range(40))
    assert counts == {a: 30, b: 10}


def test_equal_ones_rotate_also_when_every_session_ends_at_once() -> None:
    endpoints = fleet(3)
    driver = Driver(LeastConnection(), endpoints)
    order = []
    for _ in range(6):
        picked = driver.acquire(context())
        assert picked is not None
        order.append(picked)
        driver.release(picked)
    assert order == endpoints * 2


def test_who_was_chosen_past_a_tried_one_still_goes_to_the_back() -> None:
    a, b, c = fleet(3)
    driver = Driver(LeastConnection(), [a, b, c])
    assert driver.acquire(context(tried=[a])) is b
    driver.release(b)
    assert [driver.acquire(context()) for _ in range(3)] == [a, c, b]


def test_newcomers_come_first_among_equals_and_the_others_keep_their_order() -> None:
    a, b, c, d = fleet(4)
    driver = Driver(LeastConnection(), [a, b, c])
    for _ in range(2):
        picked = driver.acquire(context())
        assert picked is not None
        driver.release(picked)
    driver.rebuild([a, b, c, d])
    assert [driver.acquire(context()) for _ in range(4)] == [d, c, a, b]


def test_a_full_endpoint_comes_back_when_a_session_ends() -> None:
    a, b = endpoint(1, limit=1), endpoint(2)
    driver = Driver(LeastConnection(), [a, b], [100, 1])
    assert driver.acquire(context()) is a
    assert [driver.acquire(context()) for _ in range(3)] == [b, b, b]
    driver.release(a)
    assert driver.acquire(context()) is a


def test_a_raised_limit_counts_after_a_rebuild() -> None:
    a, b = endpoint(1, limit=1), endpoint(2)
    driver = Driver(LeastConnection(), [a, b], [100, 1])
    assert [driver.acquire(context()), driver.acquire(context())] == [a, b]
    a.max_connections = 2
    driver.rebuild([a, b], [100, 1])
    assert driver.acquire(context()) is a


def test_notices_about_strangers_change_nothing() -> None:
    a, stranger = fleet(2)
    driver = Driver(LeastConnection(), [a])
    driver.strategy.acquired(stranger)
    driver.strategy.released(stranger)
    assert driver.pick(context()) is a


class HeapAgainstScan(RuleBasedStateMachine):
    """Whatever happens, the pick is the one that looking at all endpoints gives, ties by who was chosen longest ago."""

    @initialize(weights=st.lists(st.integers(1, 7), min_size=1, max_size=7), data=st.data())
    def begin(self, weights: list[int], data: st.DataObject) -> None:
        limits = data.draw(
            st.lists(st.none() | st.integers(1, 3), min_size=len(weights), max_size=len(weights))
        )
        self.everyone = [endpoint(n, limit=limit) for n, limit in enumerate(limits, 1)]
        self.strategy = LeastConnection()
        self.driver = Driver(self.strategy, self.everyone, weights)
        self.live: list[Endpoint] = []
        self.chosen = {e: rank for rank, e in enumerate(self.everyone, 1)}
        self.choices = len(self.everyone)

    @rule(data=st.data())
    def acquire(self, data: st.DataObject) -> None:
        tried = data.draw(st.sets(st.sampled_from(self.everyone), max_size=2))
        picked = self.driver.acquire(context(tried))
        if picked is not None:
            picked.active -= 1  # as it was at the choice
        shown = self.driver.snapshot
        usable = [
            ((Fraction(e.active + 1, w), self.chosen[e]), e)
            for e, w in zip(shown.endpoints, shown.weights, strict=True)
            if e not in tried and not e.full
        ]
        assert picked is (min(usable)[1] if usable else None)
        if picked is not None:
            picked.active += 1
            self.choices += 1
            self.chosen[picked] = self.choices
            self.live.append(picked)

    @precondition(lambda self: bool(self.live))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.driver.release(self.live.pop(data.draw(st.integers(0, len(self.live) - 1))))

    @rule(data=st.data())
    def rebuild(self, data: st.DataObject) -> None:
        members = data.draw(
            st.permutations(self.everyone).flatmap(lambda p: st.just(p[: max(1, len(p) - 1)]))
        )
        weights = data.draw(st.lists(st.integers(1, 7), min_size=len(members), max_size=len(members)))
        self.driver.rebuild(members, weights)
        # Newcomers, and who left and came back, go before all others, in configured order.
        ranked = sorted(members, key=lambda e: self.chosen.get(e, 0))
        self.chosen = {e: rank for rank, e in enumerate(ranked, 1)}
        self.choices = len(members)

    @invariant()
    def the_heap_is_bounded(self) -> None:
        assert len(self.strategy._heap) <= 2 * len(self.strategy._nodes) + 16


HeapAgainstScan.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
TestHeapAgainstScan = HeapAgainstScan.TestCase


def test_the_heap_stays_bounded_over_many_sessions() -> None:
    strategy = LeastConnection()
    driver = Driver(strategy, fleet(10))
    rng = random.Random(7)
    live: list[Endpoint] = []
    for _ in range(5000):
        if live and rng.random() < 0.5:
            driver.release(live.pop(rng.randrange(len(live))))
        else:
            picked = driver.acquire(context())
            assert picked is not None
            live.append(picked)
        assert len(strategy._heap) <= 2 * 10 + 16


def test_of_some_draws_the_least_loaded_is_taken_and_the_first_on_a_tie() -> None:
    a, b, c = fleet(3)
    driver = Driver(LeastOfDraws(3), [a, b, c])
    a.active, b.active, c.active = 2, 1, 1
    assert driver.pick(scripted(0.1, 0.9, 0.5)) is c
    assert driver.pick(scripted(0.1, 0.5, 0.9)) is b


def test_draws_compare_by_weight() -> None:
    a, b = fleet(2)
    driver = Driver(LeastOfDraws(2), [a, b], [4, 1])
    a.active, b.active = 3, 1
    assert driver.pick(scripted(0.9, 0.1)) is a
    a.active = 8
    assert driver.pick(scripted(0.1, 0.9)) is b


@pytest.mark.parametrize("strategy", [LeastConnection, lambda: LeastOfDraws(2)])
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=8), seed=st.integers(0, 99), data=st.data())
def test_only_what_is_neither_full_nor_tried_is_picked_and_it_is_found_if_there(
    strategy: type[LeastConnection], weights: list[int], seed: int, data: st.DataObject
) -> None:
    endpoints = [endpoint(n, limit=1) for n in range(1, len(weights) + 1)]
    driver = Driver(strategy(), endpoints, weights)
    for each in data.draw(st.sets(st.sampled_from(endpoints))):
        each.active = 1
    tried = data.draw(st.sets(st.sampled_from(endpoints)))
    possible = [e for e in endpoints if not e.full and e not in tried]
    picked = driver.pick(context(tried, seed))
    assert picked in possible if possible else picked is None
