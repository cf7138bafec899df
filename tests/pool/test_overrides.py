"""What an operator sets: drains and weights, and how long they hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproxy.domain.effects import CloseSessions
from lbproxy.domain.endpoint import Ineligible
from lbproxy.domain.membership import MAX_WEIGHT, Membership
from lbproxy.domain.session import EndReason
from lbproxy.pool.lease import Exhausted
from lbproxy.pool.options import PoolOptions
from lbproxy.pool.overrides import KEEP_AFTER_S
from lbproxy.pool.pool import Pool
from lbproxy.pool.roster import FORGET_AFTER_S
from tests.pool.upstream import LEAST_CONNECTION, endpoint, label, member, numbers, pool_of, refused, take


def test_a_drained_endpoint_gets_nothing_new_until_it_is_undrained() -> None:
    pool = pool_of(member(1), member(2))
    lease = take(pool)
    pool.drain(label(1), 1.0)
    assert (endpoint(pool, 1).ineligible, pool.usable) == (Ineligible.DRAINED, 1)
    assert numbers(pool, 3) == [2, 2, 2]
    assert lease.endpoint.active == 1
    assert pool.advance(1e9) == ([], None)  # without a deadline nothing is ever closed
    pool.undrain(label(1), 2.0)
    assert (endpoint(pool, 1).ineligible, pool.usable) == (Ineligible(0), 2)
    assert set(numbers(pool, 2)) == {1, 2}


def test_a_drain_deadline_closes_the_sessions_left_once() -> None:
    pool = pool_of(member(1), member(2))
    lease = take(pool)
    pool.drain(label(1), 10.0, 5.0)
    assert pool.advance(14.9) == ([], 15.0)
    assert pool.advance(15.0) == ([CloseSessions("web", lease.endpoint, EndReason.DRAINED)], None)
    assert pool.advance(16.0) == ([], None)
    assert lease.endpoint.ineligible == Ineligible.DRAINED


def test_a_deadline_of_none_at_all_is_due_at_once() -> None:
    pool = pool_of(member(1))
    lease = take(pool)
    pool.drain(label(1), 10.0, 0.0)
    assert pool.advance(10.0)[0] == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]


@pytest.mark.parametrize(
    "then",
    [
        lambda pool: pool.undrain(label(1), 11.0),
        lambda pool: pool.drain(label(1), 11.0),  # again, without a deadline
    ],
)
def test_a_deadline_can_be_taken_back(then: Callable[[Pool], object]) -> None:
    pool = pool_of(member(1))
    take(pool)
    pool.drain(label(1), 10.0, 5.0)
    then(pool)
    assert pool.advance(15.0) == ([], None)


def test_a_deadline_that_finds_no_session_says_nothing() -> None:
    pool = pool_of(member(1))
    pool.drain(label(1), 0.0, 5.0)
    assert pool.advance(5.0) == ([], None)


def test_a_deadline_holds_for_an_endpoint_that_was_removed_meanwhile() -> None:
    pool = pool_of(member(1))
    lease = take(pool)
    pool.drain(label(1), 0.0, 5.0)
    pool.apply_membership(Membership(()), 1.0)
    assert pool.advance(5.0)[0] == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]


def test_a_weight_set_by_hand_wins_over_the_member_s_until_lifted() -> None:
    pool = pool_of(member(1, weight=2), member(2))
    one = endpoint(pool, 1)
    pool.set_weight(label(1), 5, 0.0)
    pool.apply_membership(Membership((member(1, weight=3), member(2))), 1.0)
    assert (one.weight, one.weight_override) == (5, 5)
    assert sorted(numbers(pool, 6)) == [1] * 5 + [2]
    pool.set_weight(label(1), None, 2.0)
    assert (one.weight, one.weight_override) == (3, None)


def test_weight_zero_takes_nothing_new_whoever_set_it() -> None:
    pool = pool_of(member(1, weight=0), member(2))
    one, two = endpoint(pool, 1), endpoint(pool, 2)
    pool.set_weight(label(2), 0, 0.0)
    assert (one.ineligible, two.ineligible) == (Ineligible.WEIGHT_ZERO, Ineligible.WEIGHT_ZERO)
    assert refused(pool) is Exhausted.NO_ENDPOINT
    pool.set_weight(label(1), 1, 0.0)
    assert numbers(pool, 2) == [1, 1]


def test_causes_come_and_go_independently() -> None:
    pool = pool_of(member(1))
    pool.drain(label(1), 0.0)
    pool.set_weight(label(1), 0, 0.0)
    pool.apply_membership(Membership(()), 0.0)
    everything = Ineligible.DRAINED | Ineligible.WEIGHT_ZERO | Ineligible.REMOVED
    assert endpoint(pool, 1).ineligible == everything
    pool.apply_membership(Membership((member(1),)), 1.0)
    pool.undrain(label(1), 1.0)
    assert endpoint(pool, 1).ineligible == Ineligible.WEIGHT_ZERO


@pytest.mark.parametrize("weight", [-1, MAX_WEIGHT + 1])
def test_a_weight_out_of_range_is_refused_and_changes_nothing(weight: int) -> None:
    pool = pool_of(member(1))
    with pytest.raises(ValueError, match=str(weight)):
        pool.set_weight(label(1), weight, 0.0)
    assert endpoint(pool, 1).weight_override is None


def test_overrides_survive_a_reload_that_replaces_the_strategy() -> None:
    pool = pool_of(member(1), member(2), member(3))
    pool.drain(label(1), 0.0)
    pool.set_weight(label(2), 4, 0.0)
    pool.reconfigure(PoolOptions("web", strategy=LEAST_CONNECTION), 1.0)
    assert endpoint(pool, 1).ineligible == Ineligible.DRAINED
    assert endpoint(pool, 2).weight == 4
    assert 1 not in numbers(pool, 10)


@pytest.mark.parametrize(("away_s", "kept"), [(10.0, True), (KEEP_AFTER_S - 1, True), (KEEP_AFTER_S, False)])
def test_overrides_survive_a_disappearance_but_not_a_long_one(away_s: float, kept: bool) -> None:
    pool = pool_of(member(1), member(2))
    pool.drain(label(1), 0.0)
    pool.set_weight(label(1), 7, 0.0)
    pool.apply_membership(Membership((member(2),)), 100.0)
    pool.advance(100.0 + min(away_s, FORGET_AFTER_S))
    pool.advance(100.0 + away_s)
    pool.apply_membership(Membership((member(1), member(2))), 100.0 + away_s)
    one = endpoint(pool, 1)
    assert (one.ineligible, one.weight) == ((Ineligible.DRAINED, 7) if kept else (Ineligible(0), 1))


def test_the_time_away_counts_from_the_last_disappearance() -> None:
    pool = pool_of(member(1), member(2))
    pool.drain(label(1), 0.0)
    everyone, rest = Membership((member(1), member(2))), Membership((member(2),))
    pool.apply_membership(rest, 0.0)
    pool.apply_membership(everyone, 3000.0)
    pool.apply_membership(rest, 3500.0)
    pool.advance(4000.0)
    pool.apply_membership(everyone, 7000.0)
    assert endpoint(pool, 1).ineligible == Ineligible.DRAINED


def test_an_override_set_while_the_endpoint_is_away_expires_with_the_others() -> None:
    pool = pool_of(member(1))
    pool.apply_membership(Membership(()), 0.0)
    pool.drain(label(1), 100.0)
    pool.advance(FORGET_AFTER_S)
    assert pool.advance(KEEP_AFTER_S - 1) == ([], KEEP_AFTER_S)
    assert pool.advance(KEEP_AFTER_S) == ([], None)


def test_an_override_can_be_lifted_after_its_endpoint_was_forgotten() -> None:
    pool = pool_of(member(1))
    pool.drain(label(1), 0.0)
    pool.apply_membership(Membership(()), 0.0)
    pool.advance(FORGET_AFTER_S)
    assert pool.endpoints() == []
    pool.undrain(label(1), 400.0)
    pool.apply_membership(Membership((member(1),)), 500.0)
    assert numbers(pool, 1) == [1]


def test_an_override_that_expired_no_longer_shows_on_an_endpoint_still_listed() -> None:
    pool = pool_of(member(1))
    take(pool)  # keeps it from being forgotten
    pool.drain(label(1), 0.0)
    pool.apply_membership(Membership(()), 0.0)
    pool.advance(KEEP_AFTER_S)
    assert endpoint(pool, 1).ineligible == Ineligible.REMOVED
