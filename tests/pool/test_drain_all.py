"""Draining an upstream as a whole."""

from __future__ import annotations

import pytest

from lbproxy.domain.address import ip_address
from lbproxy.domain.effects import CloseSessions
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.session import EndReason
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions
from lbproxy.pool.pool import Pool
from lbproxy.strategies.registry import make


class Never:
    def random(self) -> float:
        raise AssertionError("round robin draws no lots")

    def randrange(self, stop: int, /) -> int:
        raise AssertionError("round robin draws no lots")


def members(*ports: int) -> Membership:
    return Membership(tuple(Member(ip_address("10.0.0.1", port)) for port in ports))


@pytest.fixture
def pool() -> Pool:
    pool = Pool(PoolOptions("web"), lambda options: make(options.type, options.choices))
    pool.apply_membership(members(1, 2), 0.0)
    return pool


def acquire(pool: Pool) -> Lease | Exhausted:
    return pool.acquire(Context(0.0, Never(), ""))


def test_nothing_gets_sessions_not_even_what_appears_later(pool: Pool) -> None:
    pool.drain_all(1.0)
    pool.apply_membership(members(1, 2, 3), 2.0)
    assert pool.drained
    assert pool.usable == 0
    assert acquire(pool) is Exhausted.NO_ENDPOINT


def test_undrain_lifts_all_of_it_also_what_was_drained_one_by_one_and_what_is_away(pool: Pool) -> None:
    pool.drain("10.0.0.1:2", 0.5)
    pool.drain_all(1.0)
    pool.apply_membership(members(2), 2.0)
    pool.undrain_all(3.0)
    pool.apply_membership(members(1, 2), 4.0)
    assert not pool.drained
    assert pool.usable == 2


def test_the_deadline_closes_the_sessions_that_are_left(pool: Pool) -> None:
    lease = acquire(pool)
    assert isinstance(lease, Lease)
    pool.drain_all(1.0, deadline_s=10.0)
    effects, due = pool.advance(10.9)
    assert (effects, due) == ([], 11.0)
    effects, _ = pool.advance(11.0)
    assert effects == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]


@pytest.mark.parametrize("own_s", [None, 500.0])
def test_its_deadline_also_holds_for_what_was_drained_before_with_none_or_a_later_one(
    pool: Pool, own_s: float | None
) -> None:
    lease = acquire(pool)
    assert isinstance(lease, Lease)
    pool.drain(lease.endpoint.label, 0.0, deadline_s=own_s)
    pool.drain_all(1.0, deadline_s=10.0)
    effects, _ = pool.advance(11.0)
    assert effects == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]


def test_an_earlier_drain_of_one_endpoint_keeps_its_own_deadline(pool: Pool) -> None:
    lease = acquire(pool)
    assert isinstance(lease, Lease)
    pool.drain(lease.endpoint.label, 0.0, deadline_s=5.0)
    pool.drain_all(1.0, deadline_s=100.0)
    effects, _ = pool.advance(5.0)
    assert effects == [CloseSessions("web", lease.endpoint, EndReason.DRAINED)]
