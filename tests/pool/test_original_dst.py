"""The upstream that dials what the client meant."""

from __future__ import annotations

import pytest

from lbproxy.domain.address import ip_address
from lbproxy.domain.effects import CloseSessions
from lbproxy.domain.membership import Membership
from lbproxy.domain.session import EndReason
from lbproxy.pool.lease import Exhausted, Lease
from tests.pool.upstream import added, context, original_dst, pool_of

MEANT = ip_address("203.0.113.7", 443)


def test_its_one_endpoint_is_announced_by_start_and_only_once() -> None:
    pool = original_dst()
    assert pool.acquire(context(destination=MEANT)) is Exhausted.NO_ENDPOINT
    assert added(pool.start(0.0)) == ["original_dst"]
    assert pool.start(1.0) == []
    assert [e.label for e in pool.endpoints()] == ["original_dst"]
    assert pool.usable == 1


def test_every_destination_is_dialled_and_counted_on_that_endpoint() -> None:
    pool = original_dst()
    pool.start(0.0)
    leases = [pool.acquire(context(destination=ip_address("203.0.113.7", port))) for port in (1, 2)]
    one, two = leases
    assert isinstance(one, Lease)
    assert isinstance(two, Lease)
    assert [one.address.port, two.address.port] == [1, 2]
    assert one.endpoint is two.endpoint
    assert (one.endpoint.active, pool.attempts) == (2, 2)
    one.release()
    one.release()
    assert two.endpoint.active == 1


def test_it_is_tried_once_and_pausing_would_not_help() -> None:
    pool = original_dst()
    pool.start(0.0)
    tried = context(tried=pool.endpoints(), destination=MEANT)
    assert pool.acquire(tried) is Exhausted.NO_ENDPOINT


def test_without_a_destination_there_is_nothing_to_dial() -> None:
    pool = original_dst()
    pool.start(0.0)
    assert pool.acquire(context()) is Exhausted.NO_ENDPOINT
    assert pool.attempts == 0


def test_it_can_be_drained() -> None:
    pool = original_dst()
    pool.start(0.0)
    lease = pool.acquire(context(destination=MEANT))
    assert isinstance(lease, Lease)
    pool.drain("original_dst", 0.0, 5.0)
    assert pool.usable == 0
    assert pool.acquire(context(destination=MEANT)) is Exhausted.NO_ENDPOINT
    assert pool.advance(5.0)[0] == [CloseSessions("any", lease.endpoint, EndReason.DRAINED)]
    pool.undrain("original_dst", 6.0)
    assert isinstance(pool.acquire(context(destination=MEANT)), Lease)


def test_it_has_no_members_and_others_have_nothing_at_start() -> None:
    with pytest.raises(ValueError, match="no members"):
        original_dst().apply_membership(Membership(()), 0.0)
    assert pool_of().start(0.0) == []
