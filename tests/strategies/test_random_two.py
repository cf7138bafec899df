"""Two weighted draws, and the table they come from."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.strategies.draws import ROUNDS, Draws
from lbproxy.strategies.random_two import RandomTwo
from tests.strategies.fleet import Driver, context, endpoint, fleet, scripted

WEIGHTS = st.lists(st.integers(1, 9), min_size=2, max_size=8)


@pytest.mark.parametrize(("active", "winner"), [((1, 0), 1), ((0, 1), 0), ((1, 1), 0), ((5, 5), 0)])
def test_of_two_draws_the_one_with_fewer_sessions_wins_and_the_first_on_a_tie(
    active: tuple[int, int], winner: int
) -> None:
    endpoints = fleet(3)
    driver = Driver(RandomTwo(), endpoints)
    endpoints[0].active, endpoints[1].active = active
    assert driver.pick(scripted(0.0, 0.0)) is endpoints[winner]  # the second draw leaves the first one out


@pytest.mark.parametrize(("active", "winner"), [((4, 1), 0), ((5, 1), 1), ((3, 1), 0)])
def test_sessions_are_compared_relative_to_weight(active: tuple[int, int], winner: int) -> None:
    endpoints = fleet(2)
    driver = Driver(RandomTwo(), endpoints, [4, 1])
    endpoints[0].active, endpoints[1].active = active
    assert driver.pick(scripted(0.0, 0.0)) is endpoints[winner]


@pytest.mark.parametrize("weights", [[1, 1, 1], [3, 3, 3], [5, 1, 2]])
def test_every_point_of_the_draw_hits_its_weight_s_share(weights: list[int]) -> None:
    draws = Draws(tuple(fleet(3)), tuple(weights))
    total = sum(weights)
    hits = Counter(draws.one(scripted((n + 0.5) / total).rng) for n in range(total))
    assert [hits[i] for i in range(3)] == weights
    for first in range(3):
        rest = total - weights[first]
        hits = Counter(draws.other(scripted((n + 0.5) / rest).rng, first) for n in range(rest))
        assert [hits[i] for i in range(3)] == [0 if i == first else w for i, w in enumerate(weights)]


@given(WEIGHTS, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_two_draws_are_always_two_places(weights: list[int], one: float, other: float) -> None:
    draws = Draws(tuple(fleet(len(weights))), tuple(weights))
    first = draws.one(scripted(one).rng)
    second = draws.other(scripted(other).rng, first)
    assert first != second
    assert 0 <= first < len(weights)
    assert 0 <= second < len(weights)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [5, 1, 1, 3]])
def test_shares_follow_the_weights_while_nothing_is_busy(weights: list[int]) -> None:
    endpoints = fleet(4)
    driver = Driver(RandomTwo(), endpoints, weights)
    given_context = context(seed=11)
    counts = Counter(driver.pick(given_context) for _ in range(10_000))
    for each, weight in zip(endpoints, weights, strict=True):
        share = weight / sum(weights)
        deviation = (10_000 * share * (1 - share)) ** 0.5
        assert abs(counts[each] - 10_000 * share) < 5 * deviation


def test_open_sessions_stay_close_to_the_weights() -> None:
    endpoints = fleet(20)
    weights = [1, 2] * 10
    driver = Driver(RandomTwo(), endpoints, weights)
    given_context = context(seed=3)
    for _ in range(3000):
        driver.acquire(given_context)
    loads = [e.active / w for e, w in zip(endpoints, weights, strict=True)]
    assert max(loads) - min(loads) <= 5  # one weighted draw alone spreads them by about 45


@given(WEIGHTS, st.integers(0, 999), st.data())
def test_what_can_be_picked_is_found_however_rare(weights: list[int], seed: int, data: st.DataObject) -> None:
    endpoints = [endpoint(n, limit=1) for n in range(1, len(weights) + 1)]
    driver = Driver(RandomTwo(), endpoints, weights)
    for each in data.draw(st.sets(st.sampled_from(endpoints))):
        each.active = 1
    tried = data.draw(st.sets(st.sampled_from(endpoints)))
    possible = [e for e in endpoints if not e.full and e not in tried]
    picked = driver.pick(context(tried, seed))
    assert picked in possible if possible else picked is None


def test_the_last_one_with_room_is_found_when_every_draw_misses_it() -> None:
    endpoints = [endpoint(n, limit=1) for n in range(1, 5)]
    for each in endpoints[:3]:
        each.active = 1
    driver = Driver(RandomTwo(), endpoints)
    assert driver.pick(scripted(*[0.0] * (2 * ROUNDS + 2))) is endpoints[3]


def test_of_two_with_room_that_every_draw_misses_the_less_loaded_is_found() -> None:
    endpoints = [endpoint(n, limit=9) for n in range(1, 5)]
    endpoints[0].active = endpoints[2].active = 9
    endpoints[1].active = 5
    driver = Driver(RandomTwo(), endpoints)
    missing = [0.0, 0.5] * ROUNDS  # the first place, then the third
    assert driver.pick(scripted(*missing, 0.0, 0.5)) is endpoints[3]
    assert driver.pick(scripted(*missing, 0.5, 0.0)) is endpoints[3]


def test_one_endpoint_is_one_draw() -> None:
    (only,) = endpoints = fleet(1)
    driver = Driver(RandomTwo(), endpoints)
    assert driver.pick(scripted(0.99)) is only
    assert driver.pick(context(tried=[only])) is None
    driver.rebuild([])
    assert driver.pick(context()) is None


def test_a_seed_decides_the_picks() -> None:
    runs = []
    for _ in range(2):
        driver = Driver(RandomTwo(), fleet(9))
        rng = random.Random(5).random()
        given_context = context(seed=int(rng * 1000))
        runs.append([str(driver.acquire(given_context)) for _ in range(50)])
    assert runs[0] == runs[1]
