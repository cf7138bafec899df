"""Smooth weighted round robin against the plain algorithm it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.endpoint import Endpoint
from lbproxy.strategies.round_robin import RoundRobin
from tests.strategies.fleet import Driver, context, endpoint, fleet

WEIGHTS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


class Nginx:
    """ngx_http_upstream_get_peer as it is written, over all endpoints for each pick. Tried ones are passed over; full ones that
    would have been picked pay as if they had been."""

    def __init__(self, endpoints: list[Endpoint], weights: list[int]) -> None:
        self.endpoints = endpoints
        self.weights = weights
        self.balance = [0] * len(endpoints)

    def pick(self, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        risen = [c + w for c, w in zip(self.balance, self.weights, strict=True)]
        total = sum(self.weights)
        passed = []
        for place in sorted(range(len(risen)), key=lambda i: (-risen[i], i)):
            found = self.endpoints[place]
            if found in tried:
                continue
            passed.append(place)
            if not found.full:
                break
        else:
            return None
        for place in passed:
            risen[place] -= total
        self.balance = risen
        return self.endpoints[passed[-1]]


def credits_of(strategy: RoundRobin) -> dict[Endpoint, int]:
    return {
        turn.endpoint: turn.base + weight * strategy._picks
        for weight, queue in strategy._classes
        for turn in queue
    }


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [
        ([5, 1, 1], "aabacaa"),
        ([1, 1, 1], "abc"),
        ([4, 2, 1], "abacaba"),
        ([1, 2], "bab"),
        ([3, 3, 1], "abcabab"),
        ([7], "aaaaaaa"),
    ],
)
def test_the_sequence_is_nginx_s_and_repeats(weights: list[int], sequence: str) -> None:
    endpoints = fleet(len(weights))
    driver = Driver(RoundRobin(), endpoints, weights)
    names = {e: "abc"[i] for i, e in enumerate(endpoints)}
    picked = [driver.pick(context()) for _ in range(2 * len(sequence))]
    assert "".join(names[e] for e in picked if e) == sequence * 2


@given(WEIGHTS)
def test_every_pick_equals_the_plain_algorithm_s(weights: list[int]) -> None:
    endpoints = fleet(len(weights))
    driver, nginx = Driver(RoundRobin(), endpoints, weights), Nginx(endpoints, weights)
    for _ in range(2 * sum(weights) + 5):
        assert driver.pick(context()) is nginx.pick()


@given(WEIGHTS)
def test_a_cycle_gives_each_exactly_its_weight(weights: list[int]) -> None:
    endpoints = fleet(len(weights))
    driver = Driver(RoundRobin(), endpoints, weights)
    counts = Counter(driver.pick(context()) for _ in range(sum(weights)))
    assert [counts[e] for e in endpoints] == weights


@given(WEIGHTS, st.data())
def test_full_and_tried_ones_are_passed_as_the_plain_algorithm_passes_them(
    weights: list[int], data: st.DataObject
) -> None:
    endpoints = [endpoint(n, limit=1) for n in range(1, len(weights) + 1)]
    driver, nginx = Driver(RoundRobin(), endpoints, weights), Nginx(endpoints, weights)
    some = st.sets(st.sampled_from(endpoints))
    for _ in range(data.draw(st.integers(1, 30))):
        full, tried = data.draw(some), data.draw(some)
        for each in endpoints:
            each.active = int(each in full)
        assert driver.pick(context(tried)) is nginx.pick(tried)


@given(st.data())
def test_after_any_rebuild_picks_go_on_exactly_from_the_credits_kept(data: st.DataObject) -> None:
    """Also where the order of a class had to be settled anew: weights change, members move, some forfeited turns."""
    everyone = [endpoint(n, limit=1) for n in range(1, 9)]
    driver = Driver(RoundRobin(), everyone, [1] * 8)
    for _ in range(data.draw(st.integers(1, 6))):
        members = data.draw(st.lists(st.sampled_from(everyone), unique=True, min_size=1))
        weights = data.draw(st.lists(st.integers(1, 6), min_size=len(members), max_size=len(members)))
        driver.rebuild(members, weights)
        nginx = Nginx(members, weights)
        assert isinstance(driver.strategy, RoundRobin)
        kept = credits_of(driver.strategy)
        nginx.balance = [kept[e] for e in members]
        assert all(abs(c) <= sum(weights) for c in nginx.balance)
        full = data.draw(st.sets(st.sampled_from(everyone)))
        for each in everyone:
            each.active = int(each in full)
        for _ in range(data.draw(st.integers(0, 25))):
            assert driver.pick(context()) is nginx.pick()


@given(WEIGHTS, st.integers(0, 40))
def test_a_rebuild_that_changes_nothing_keeps_the_position(weights: list[int], picks: int) -> None:
    endpoints = fleet(len(weights))
    driver, nginx = Driver(RoundRobin(), endpoints, weights), Nginx(endpoints, weights)
    for _ in range(picks):
        assert driver.pick(context()) is nginx.pick()
    driver.rebuild(endpoints, weights)
    for _ in range(sum(weights)):
        assert driver.pick(context()) is nginx.pick()


def test_a_member_that_leaves_or_comes_does_not_restart_the_others() -> None:
    a, b, c, d = fleet(4)
    driver = Driver(RoundRobin(), [a, b, c])
    assert [driver.pick(context()) for _ in range(2)] == [a, b]
    driver.rebuild([a, b, c, d])
    assert [driver.pick(context()) for _ in range(4)] == [c, d, a, b]
    driver.rebuild([a, b, d])
    assert [driver.pick(context()) for _ in range(3)] == [d, a, b]


def test_a_newcomer_gets_no_burst_after_many_turns_were_forfeited() -> None:
    a, b, c = endpoint(1, limit=1), endpoint(2), endpoint(3)
    driver = Driver(RoundRobin(), [a, b])
    a.active = 1
    for _ in range(1000):
        assert driver.pick(context()) is b
    driver.rebuild([a, b, c])
    counts = Counter(driver.pick(context()) for _ in range(20))
    assert abs(counts[b] - counts[c]) <= 2


def test_the_position_survives_a_rebuild_after_many_turns_were_forfeited() -> None:
    a, b, c, d = endpoint(1, limit=1), endpoint(2), endpoint(3), endpoint(4)
    driver = Driver(RoundRobin(), [a, b, c, d])
    a.active = 1
    assert [driver.pick(context()) for _ in range(301)][-1] is b
    driver.rebuild([b, c, d])
    assert [driver.pick(context()) for _ in range(3)] == [c, d, b]


def test_a_full_endpoint_gets_no_burst_when_it_has_room_again() -> None:
    a, b, c = endpoint(1, limit=1), endpoint(2), endpoint(3)
    driver = Driver(RoundRobin(), [a, b, c])
    a.active = 1
    assert Counter(driver.pick(context()) for _ in range(30)) == {b: 15, c: 15}
    a.active = 0
    assert Counter(driver.pick(context()) for _ in range(30)) == {a: 10, b: 10, c: 10}


def test_a_tried_endpoint_keeps_its_turn_for_the_next_session() -> None:
    a, b, c = fleet(3)
    driver = Driver(RoundRobin(), [a, b, c])
    assert driver.pick(context(tried=[a])) is b
    assert [driver.pick(context()) for _ in range(3)] == [a, c, a]


@pytest.mark.parametrize("tried", [False, True])
def test_nothing_is_picked_and_no_turn_lost_when_all_are_full_or_tried(tried: bool) -> None:
    endpoints = [endpoint(n, limit=1) for n in range(1, 5)]
    driver = Driver(RoundRobin(), endpoints, [3, 1, 1, 2])
    driver.pick(context())
    assert isinstance(driver.strategy, RoundRobin)
    before = credits_of(driver.strategy)
    for each in endpoints:
        each.active = 0 if tried else 1
    assert driver.pick(context(tried=endpoints if tried else ())) is None
    assert credits_of(driver.strategy) == before


def test_without_members_nothing_is_picked() -> None:
    assert RoundRobin().pick(Driver(RoundRobin(), []).snapshot, context()) is None
