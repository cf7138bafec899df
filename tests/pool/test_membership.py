"""Endpoints that come, stay, change, go and come back."""

from __future__ import annotations

import pytest

from lbproxy.domain.effects import Notice
from lbproxy.domain.endpoint import Ineligible
from lbproxy.domain.membership import Member, Membership
from lbproxy.pool.lease import Exhausted
from lbproxy.pool.roster import FORGET_AFTER_S, LINGER_CHECK_S
from tests.pool.upstream import (
    LEAST_CONNECTION,
    added,
    endpoint,
    forgotten,
    label,
    member,
    numbers,
    pool_of,
    refused,
    take,
)


def test_new_endpoints_are_announced_once_and_in_order() -> None:
    pool = pool_of()
    assert added(pool.apply_membership(Membership((member(2), member(1))), 0.0)) == [label(2), label(1)]
    assert added(pool.apply_membership(Membership((member(1), member(3), member(2))), 1.0)) == [label(3)]
    assert [e.label for e in pool.endpoints()] == [label(1), label(3), label(2)]


def test_the_same_answer_again_changes_nothing() -> None:
    pool = pool_of(member(1), member(2))
    assert numbers(pool, 1) == [1]
    assert pool.apply_membership(Membership((member(1), member(2))), 1.0) == []
    assert numbers(pool, 1) == [2]


def test_two_entries_on_one_address_are_one_endpoint() -> None:
    pool = pool_of(member(1, weight=3), member(1, weight=9))
    assert [(e.label, e.weight) for e in pool.endpoints()] == [(label(1), 3)]


def test_who_stays_keeps_object_counters_and_turn_while_its_particulars_change() -> None:
    pool = pool_of(member(1), member(2), member(3))
    one = endpoint(pool, 1)
    held = take(pool)
    pool.apply_membership(Membership((member(1, limit=9), member(2), member(3), member(4))), 1.0)
    assert endpoint(pool, 1) is one is held.endpoint
    assert (one.active, one.max_connections) == (1, 9)
    assert numbers(pool, 4) == [2, 3, 4, 1]
    pool.apply_membership(Membership((member(1, weight=5, priority=2), member(2))), 2.0)
    assert (one.weight, one.priority, one.active) == (5, 2, 1)
    held.release()
    assert one.active == 0


def test_a_removed_endpoint_gets_nothing_new_and_keeps_its_sessions() -> None:
    pool = pool_of(member(1), member(2))
    lease = take(pool)
    pool.apply_membership(Membership((member(2),)), 10.0)
    assert lease.endpoint.ineligible == Ineligible.REMOVED
    assert (lease.endpoint.removed_at, lease.endpoint.active) == (10.0, 1)
    assert numbers(pool, 2) == [2, 2]
    assert pool.usable == 1
    assert [e.label for e in pool.endpoints()] == [label(2), label(1)]
    lease.release()
    assert lease.endpoint.active == 0


def test_a_removed_endpoint_stays_listed_for_a_while_and_is_then_forgotten_once() -> None:
    pool = pool_of(member(1))
    pool.apply_membership(Membership(()), 10.0)
    assert refused(pool) is Exhausted.NO_ENDPOINT
    due = 10.0 + FORGET_AFTER_S
    assert pool.advance(due - 0.001) == ([], due)
    assert len(pool.endpoints()) == 1
    effects, next_due = pool.advance(due)
    assert (forgotten(effects), next_due) == ([label(1)], None)
    assert pool.endpoints() == []
    assert pool.advance(due + 1.0) == ([], None)


def test_an_endpoint_with_sessions_left_is_not_forgotten() -> None:
    pool = pool_of(member(1))
    lease = take(pool)
    pool.apply_membership(Membership(()), 0.0)
    late = FORGET_AFTER_S + 5.0
    assert pool.advance(late) == ([], late + LINGER_CHECK_S)
    lease.release()
    effects, next_due = pool.advance(late + LINGER_CHECK_S)
    assert (forgotten(effects), next_due) == ([label(1)], None)


def test_who_comes_back_in_time_is_the_same_endpoint_and_later_a_new_one() -> None:
    pool = pool_of(member(1), member(2))
    one = endpoint(pool, 1)
    pool.connected(one, 0.001, 0.0)
    pool.apply_membership(Membership((member(2),)), 1.0)
    back = pool.apply_membership(Membership((member(1, weight=2), member(2))), 100.0)
    assert added(back) == []
    assert endpoint(pool, 1) is one
    assert (one.ineligible, one.removed_at, one.total, one.weight) == (Ineligible(0), None, 1, 2)
    assert pool.advance(1.0 + FORGET_AFTER_S) == ([], None)
    pool.apply_membership(Membership((member(2),)), 400.0)
    pool.advance(400.0 + FORGET_AFTER_S)
    assert added(pool.apply_membership(Membership((member(1), member(2))), 800.0)) == [label(1)]
    assert endpoint(pool, 1) is not one


def test_a_removal_repeated_does_not_start_the_wait_anew() -> None:
    pool = pool_of(member(1), member(2))
    pool.apply_membership(Membership((member(2),)), 0.0)
    pool.apply_membership(Membership((member(2), member(3))), 200.0)
    effects, _ = pool.advance(FORGET_AFTER_S)
    assert forgotten(effects) == [label(1)]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            (member(1), member(2), member(3)),
            f"1 added ({label(3)}), 0 removed, 0 changed, 3 in all",
        ),
        (
            (member(2, weight=3, priority=1),),
            f"0 added, 1 removed ({label(1)}), 1 changed ({label(2)}: weight 1 to 3 and priority 0 to 1), 1 in all",
        ),
        (
            tuple(member(number) for number in range(1, 8)),
            f"5 added ({label(3)}, {label(4)}, {label(5)} and 2 more), 0 removed, 0 changed, 7 in all",
        ),
    ],
)
def test_a_change_is_told_in_one_sentence(members: tuple[Member, ...], message: str) -> None:
    pool = pool_of(member(1), member(2))
    (notice,) = [e for e in pool.apply_membership(Membership(members), 1.0) if isinstance(e, Notice)]
    assert notice == Notice("web", "membership_changed", f"endpoints: {message}")


def test_a_tier_that_nothing_changed_in_keeps_its_position() -> None:
    pool = pool_of(member(1), member(2), member(3, priority=1))
    assert numbers(pool, 1) == [1]
    pool.apply_membership(Membership((member(1), member(2))), 1.0)
    assert numbers(pool, 2) == [2, 1]


def test_a_raised_limit_counts_at_once_also_for_a_strategy_that_sets_full_ones_aside() -> None:
    pool = pool_of(member(1, limit=1, weight=9), member(2), strategy=LEAST_CONNECTION)
    assert [take(pool).endpoint.label for _ in range(2)] == [label(1), label(2)]
    pool.apply_membership(Membership((member(1, limit=2, weight=9), member(2))), 1.0)
    assert take(pool).endpoint.label == label(1)
