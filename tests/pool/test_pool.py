"""The pool: who is eligible, what is counted, what survives."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.effects import CloseSessions, EndpointAdded, EndpointForgotten
from lbproxy.domain.endpoint import Ineligible
from lbproxy.domain.errors import ConnectFailure
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.session import EndReason
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.pool.roster import FORGET_AFTER_S
from lbproxy.strategies.registry import make


def member(port: int, **attributes: object) -> Member:
    return replace(Member(ip_address("10.0.0.1", port)), **attributes)  # type: ignore[arg-type]


def made(*members: Member, options: PoolOptions | None = None) -> Pool:
    pool = Pool(options or PoolOptions("web"), lambda each: make(each.type, each.choices))
    pool.apply_membership(Membership(members), 0.0)
    return pool


def context(destination: Address | None = None) -> Context:
    return Context(0.0, random.Random(1), "", destination)


def acquire(pool: Pool, given: Context | None = None) -> Lease:
    lease = pool.acquire(given or context())
    assert isinstance(lease, Lease)
    return lease


def ports(pool: Pool, count: int) -> list[int]:
    return [acquire(pool).address.port for _ in range(count)]


def test_a_lease_counts_from_the_choice_and_is_given_back_once() -> None:
    pool = made(member(1))
    lease = acquire(pool)
    [endpoint] = pool.endpoints()
    assert (endpoint.active, pool.attempts) == (1, 1)
    lease.release()
    lease.release()
    assert endpoint.active == 0


@pytest.mark.parametrize(
    ("members", "tried", "expected"),
    [
        ([], [], Exhausted.NO_ENDPOINT),
        ([member(1, weight=0)], [], Exhausted.NO_ENDPOINT),
        ([member(1, max_connections=0)], [], Exhausted.FULL),
        ([member(1)], [1], Exhausted.TRIED),
        ([member(1), member(2, max_connections=0)], [1], Exhausted.TRIED),
        ([member(1, weight=0), member(2)], [2], Exhausted.TRIED),
    ],
)
def test_why_nothing_can_be_picked(members: list[Member], tried: list[int], expected: Exhausted) -> None:
    pool = made(*members)
    given = context()
    given.tried = [endpoint for endpoint in pool.endpoints() if endpoint.address.port in tried]
    assert pool.acquire(given) is expected


def test_the_next_tier_serves_only_when_the_first_has_nothing() -> None:
    """L10, and its generous reading: full and tried count as nothing, too."""
    pool = made(member(1, max_connections=2), member(2, priority=1))
    assert ports(pool, 4) == [1, 1, 2, 2]
    pool.drain("10.0.0.1:1", 0.0)
    assert ports(pool, 1) == [2]


def test_members_that_stay_keep_their_object_their_counters_and_their_turn() -> None:
    pool = made(member(1), member(2), member(3))
    assert ports(pool, 1) == [1]
    before = pool.endpoints()
    effects = pool.apply_membership(Membership((member(1), member(2, zone="a"), member(3), member(4))), 1.0)
    assert [each.endpoint.address.port for each in effects if isinstance(each, EndpointAdded)] == [4]
    assert list(pool.endpoints()[:3]) == list(before)
    assert pool.endpoints()[1].member.zone == "a"
    assert ports(pool, 4) == [2, 3, 4, 1]


def test_a_removed_endpoint_takes_nothing_new_keeps_its_sessions_and_is_forgotten_late() -> None:
    pool = made(member(1), member(2))
    lease = acquire(pool)
    pool.apply_membership(Membership((member(2),)), 10.0)
    assert set(ports(pool, 5)) == {2}
    assert Ineligible.REMOVED in lease.endpoint.ineligible
    effects, due = pool.advance(10.0 + FORGET_AFTER_S)
    assert effects == []
    assert due is not None
    assert due > 10.0 + FORGET_AFTER_S
    lease.release()
    effects, due = pool.advance(due)
    assert effects == [EndpointForgotten("web", lease.endpoint)]
    assert due is None
    assert [endpoint.address.port for endpoint in pool.endpoints()] == [2]


def test_an_endpoint_that_comes_back_is_the_same_one() -> None:
    pool = made(member(1), member(2))
    first = pool.endpoints()[0]
    first.total = 7
    pool.apply_membership(Membership((member(2),)), 1.0)
    effects = pool.apply_membership(Membership((member(1), member(2))), 2.0)
    assert not [each for each in effects if isinstance(each, EndpointAdded)]
    assert pool.endpoints()[0] is first
    assert first.total == 7
    assert not first.ineligible


def test_what_an_operator_set_survives_reloads_and_a_disappearance() -> None:
    pool = made(member(1), member(2))
    pool.set_weight("10.0.0.1:1", 9, 0.0)
    pool.drain("10.0.0.1:2", 0.0)
    pool.apply_membership(Membership(()), 1.0)
    pool.advance(FORGET_AFTER_S + 2.0)
    assert pool.endpoints() == []
    pool.apply_membership(Membership((member(1, weight=3), member(2))), 1000.0)
    one, two = pool.endpoints()
    assert (one.weight, one.weight_override) == (9, 9)
    assert Ineligible.DRAINED in two.ineligible
    pool.set_weight("10.0.0.1:1", None, 1001.0)
    pool.undrain("10.0.0.1:2", 1001.0)
    assert (one.weight, one.weight_override, pool.usable) == (3, None, 2)


def test_what_an_operator_set_is_not_kept_for_ever() -> None:
    pool = made(member(1))
    pool.drain("10.0.0.1:1", 0.0)
    pool.apply_membership(Membership(()), 1.0)
    now: float | None = 1.0
    while now is not None:
        _, now = pool.advance(now)
    pool.apply_membership(Membership((member(1),)), 10_000.0)
    assert pool.usable == 1


def test_a_drain_deadline_closes_what_is_left_and_an_undrain_calls_it_off() -> None:
    pool = made(member(1), member(2))
    lease = acquire(pool)
    pool.drain("10.0.0.1:1", 5.0, deadline_s=10.0)
    assert pool.advance(14.9) == ([], 15.0)
    effects, _ = pool.advance(15.0)
    assert effects == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]
    pool.drain("10.0.0.1:1", 20.0, deadline_s=10.0)
    pool.undrain("10.0.0.1:1", 21.0)
    assert pool.advance(100.0) == ([], None)


def test_local_failures_are_counted_and_never_blamed() -> None:
    pool = made(member(1))
    [endpoint] = pool.endpoints()
    for failure in (ConnectFailure.REFUSED, ConnectFailure.LOCAL, ConnectFailure.TIMEOUT):
        pool.dial_failed(endpoint, failure, 0.0)
    assert endpoint.failure_streak == 2
    assert endpoint.connect_failures == dict.fromkeys(
        (ConnectFailure.REFUSED, ConnectFailure.LOCAL, ConnectFailure.TIMEOUT), 1
    )
    pool.connected(endpoint, 0.004, 0.0)
    assert (endpoint.failure_streak, endpoint.total, sum(pool.connect_duration.counts)) == (0, 1, 1)


def test_a_changed_strategy_starts_anew_and_old_leases_come_back_to_it() -> None:
    pool = made(member(1), member(2))
    leases = [acquire(pool) for _ in range(4)]
    pool.reconfigure(PoolOptions("web", strategy=StrategyOptions("least_connection")), 1.0)
    for lease in leases:
        if lease.address.port == 1:
            lease.release()
    assert ports(pool, 2) == [1, 1]


@pytest.mark.parametrize("call", ["drain", "undrain", "set_weight"])
def test_an_unknown_endpoint_is_a_key_error(call: str) -> None:
    pool = made(member(1))
    arguments = ("10.0.0.1:2", 3, 0.0) if call == "set_weight" else ("10.0.0.1:2", 0.0)
    with pytest.raises(KeyError):
        getattr(pool, call)(*arguments)


@pytest.mark.parametrize("weight", [-1, 65536])
def test_a_weight_out_of_range_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="weight"):
        made(member(1)).set_weight("10.0.0.1:1", weight, 0.0)


def test_original_dst_dials_where_the_client_meant_to_go_once() -> None:
    pool = Pool(PoolOptions("any", kind="original_dst"), lambda each: make(each.type, each.choices))
    [added] = [each for each in pool.start(0.0) if isinstance(each, EndpointAdded)]
    given = context(ip_address("192.0.2.7", 443))
    lease = acquire(pool, given)
    assert (lease.address, lease.endpoint.label) == (ip_address("192.0.2.7", 443), "original_dst")
    given.tried = [added.endpoint]
    lease.release()
    assert pool.acquire(given) is Exhausted.NO_ENDPOINT
    assert pool.acquire(context()) is Exhausted.NO_ENDPOINT
