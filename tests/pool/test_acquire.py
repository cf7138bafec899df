"""Who gets a session, and what is said when nobody can."""

from __future__ import annotations

import pytest

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.membership import Membership
from lbproxy.pool.lease import Exhausted
from lbproxy.pool.options import PoolOptions, StrategyOptions
from tests.pool.upstream import (
    LEAST_CONNECTION,
    RANDOM,
    ROUND_ROBIN,
    endpoint,
    label,
    member,
    numbers,
    pool_of,
    refused,
    take,
)

EVERY_STRATEGY = [ROUND_ROBIN, LEAST_CONNECTION, StrategyOptions("least_connection", 2), RANDOM]


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_a_limit_holds_and_a_released_session_makes_room(strategy: StrategyOptions) -> None:
    pool = pool_of(member(1, limit=2), member(2, limit=1), strategy=strategy)
    leases = [take(pool) for _ in range(3)]
    assert sorted(lease.endpoint.label for lease in leases) == [label(1), label(1), label(2)]
    assert refused(pool) is Exhausted.FULL
    leases[1].release()
    assert take(pool).endpoint is leases[1].endpoint
    assert refused(pool) is Exhausted.FULL


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_no_session_gets_what_it_tried_while_others_are_left(strategy: StrategyOptions) -> None:
    pool = pool_of(member(1), member(2), member(3), strategy=strategy)
    tried: list[Endpoint] = []
    for _ in range(3):
        lease = take(pool, tried)
        tried.append(lease.endpoint)
        lease.release()
    assert len(set(tried)) == 3
    assert refused(pool, tried) is Exhausted.TRIED


def test_why_nothing_is_picked_follows_what_happens() -> None:
    pool = pool_of(member(1, limit=1), member(2, limit=1), member(3, weight=0))
    one, two = endpoint(pool, 1), endpoint(pool, 2)
    assert refused(pool, [one, two]) is Exhausted.TRIED
    assert take(pool).endpoint is one
    assert refused(pool, [one, two]) is Exhausted.TRIED  # the second one has room
    assert take(pool).endpoint is two
    assert refused(pool, [one, two]) is Exhausted.FULL
    pool.drain(label(1), 0.0)
    pool.drain(label(2), 0.0)
    assert refused(pool, [one, two]) is Exhausted.NO_ENDPOINT


def test_tried_endpoints_that_are_no_longer_eligible_give_no_hope() -> None:
    pool = pool_of(member(1), member(2, limit=1))
    one = endpoint(pool, 1)
    assert take(pool, [one]).endpoint is endpoint(pool, 2)
    pool.drain(label(1), 0.0)
    assert refused(pool, [one]) is Exhausted.FULL


def test_a_later_tier_serves_when_nothing_in_the_first_can() -> None:
    pool = pool_of(member(1, priority=1), member(2, limit=1), member(3, priority=7))
    assert numbers(pool, 3) == [2, 2, 2]
    held = take(pool)
    assert numbers(pool, 2) == [1, 1]  # the first tier is full
    held.release()
    assert take(pool, [endpoint(pool, 2)]).endpoint is endpoint(pool, 1)
    assert take(pool, [endpoint(pool, 1), endpoint(pool, 2)]).endpoint is endpoint(pool, 3)
    pool.drain(label(2), 0.0)
    assert numbers(pool, 2) == [1, 1]
    pool.undrain(label(2), 0.0)
    assert numbers(pool, 2) == [2, 2]


def test_a_lease_from_before_a_new_strategy_makes_room_in_the_new_one() -> None:
    pool = pool_of(member(1, limit=1), member(2, limit=1))
    first, second = take(pool), take(pool)
    pool.reconfigure(PoolOptions("web", strategy=LEAST_CONNECTION), 0.0)
    assert refused(pool) is Exhausted.FULL
    first.release()
    assert take(pool).endpoint is first.endpoint
    second.release()
    assert take(pool).endpoint is second.endpoint
    assert refused(pool) is Exhausted.FULL


def test_options_that_stay_keep_the_position_and_others_start_anew() -> None:
    pool = pool_of(member(1), member(2), member(3))
    assert numbers(pool, 1) == [1]
    pool.reconfigure(PoolOptions("web", strategy=StrategyOptions("round_robin")), 0.0)
    assert numbers(pool, 1) == [2]
    pool.reconfigure(PoolOptions("web", strategy=LEAST_CONNECTION), 0.0)
    assert numbers(pool, 3) == [1, 2, 3]


@pytest.mark.parametrize("options", [PoolOptions("other"), PoolOptions("web", kind="original_dst")])
def test_a_pool_cannot_become_another(options: PoolOptions) -> None:
    with pytest.raises(ValueError, match="cannot become"):
        pool_of().reconfigure(options, 0.0)


def test_a_lowered_limit_lets_sessions_end_and_takes_no_new_ones() -> None:
    pool = pool_of(member(1, limit=3))
    leases = [take(pool) for _ in range(3)]
    pool.apply_membership(Membership((member(1, limit=1),)), 1.0)
    for lease in leases[:2]:
        lease.release()
        assert refused(pool) is Exhausted.FULL
    leases[2].release()
    assert take(pool).endpoint.active == 1


def test_a_session_that_ends_while_its_endpoint_is_drained_makes_room_after_the_drain() -> None:
    pool = pool_of(member(1, limit=1), member(2, limit=1))
    lease, _ = take(pool), take(pool)
    pool.drain(lease.endpoint.label, 0.0)
    assert refused(pool) is Exhausted.FULL
    lease.release()
    assert refused(pool) is Exhausted.FULL
    pool.undrain(lease.endpoint.label, 0.0)
    assert take(pool).endpoint is lease.endpoint
    assert refused(pool) is Exhausted.FULL
