"""Leases: put, renewed, dropped, run out; and what a follower hears of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.push.leases import Leases, LeasesFullError
from lbproxy.domain.address import Address, HostName

A = Address("10.0.0.1", 80, "inet")
B = HostName("b.internal", 80)
ONE = Candidate("10.0.0.1", 80)
OTHER = Candidate("b.internal", 80)


def counted(leases: Leases) -> list[int]:
    """Grows with each call of `changed`."""
    calls: list[int] = []
    leases.changed = lambda: calls.append(1)
    return calls


def test_a_lease_holds_until_its_time_and_no_longer() -> None:
    leases = Leases()
    assert leases.put(A, ONE, 30, 100.0)
    assert leases.next_expiry() == 130
    assert leases.expire(129.9) == 0
    assert leases.candidates() == (ONE,)
    assert leases.expire(130) == 1
    assert leases.candidates() == ()
    assert leases.next_expiry() is None
    assert leases.put(A, ONE, 30, 131.0)


def test_a_renewal_is_no_change_and_wakes_nobody() -> None:
    leases = Leases()
    leases.put(A, ONE, 30, 0.0)
    before = leases.candidates()
    calls = counted(leases)
    assert not leases.put(A, Candidate("10.0.0.1", 80), 30, 10.0)
    assert leases.candidates() is before
    assert leases.next_expiry() == 40
    assert calls == []


def test_another_weight_or_a_shorter_lease_wakes_the_follower() -> None:
    leases = Leases()
    leases.put(A, ONE, 30, 0.0)
    calls = counted(leases)
    leases.put(A, ONE, 5, 10.0)
    assert len(calls) == 1
    leases.put(A, Candidate("10.0.0.1", 80, weight=3), 60, 10.0)
    assert len(calls) == 2
    assert leases.candidates() == (Candidate("10.0.0.1", 80, weight=3),)


def test_who_leaves_is_gone_at_once() -> None:
    leases = Leases()
    leases.put(A, ONE, 30, 0.0)
    leases.put(B, OTHER, 30, 0.0)
    calls = counted(leases)
    assert leases.drop(A, 1.0)
    assert leases.candidates() == (OTHER,)
    assert len(calls) == 1
    assert not leases.drop(A, 1.0)
    assert not leases.drop(B, 30.0)  # it had run out already


def test_their_number_is_bounded_and_what_has_run_out_makes_room() -> None:
    leases = Leases(limit=1)
    leases.put(A, ONE, 30, 0.0)
    with pytest.raises(LeasesFullError, match="1 endpoints"):
        leases.put(B, OTHER, 30, 1.0)
    assert not leases.put(A, ONE, 30, 2.0)
    assert leases.put(B, OTHER, 30, 32.0)
    assert leases.candidates() == (OTHER,)


class AnyOrder(RuleBasedStateMachine):
    """Against a dictionary of deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(limit=3)
        self.model: dict[Address, tuple[int, float]] = {}
        self.now = 0.0
        self.woken = False
        self.leases.changed = self._wake

    def _wake(self) -> None:
        self.woken = True

    def _expire(self) -> None:
        self.model = {key: each for key, each in self.model.items() if each[1] > self.now}

    @rule(number=st.integers(1, 5), weight=st.integers(1, 2), lease_s=st.integers(1, 5))
    def put(self, number: int, weight: int, lease_s: int) -> None:
        self._expire()
        target = Address(f"10.0.0.{number}", 80, "inet")
        candidate = Candidate(target.host, 80, weight=weight)
        self.woken = False
        if target not in self.model and len(self.model) == 3:
            with pytest.raises(LeasesFullError):
                self.leases.put(target, candidate, lease_s, self.now)
            return
        before = self.model.get(target)
        self.model[target] = (weight, self.now + lease_s)
        assert self.leases.put(target, candidate, lease_s, self.now) == (before is None)
        if before is None or before[0] != weight or self.now + lease_s < before[1]:
            assert self.woken

    @rule(number=st.integers(1, 5))
    def drop(self, number: int) -> None:
        self._expire()
        target = Address(f"10.0.0.{number}", 80, "inet")
        assert self.leases.drop(target, self.now) == (self.model.pop(target, None) is not None)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        before = len(self.model)
        self._expire()
        assert self.leases.expire(self.now) == before - len(self.model)

    @invariant()
    def says_what_is(self) -> None:
        found = {(each.host, each.weight) for each in self.leases.candidates()}
        assert found == {(key.host, weight) for key, (weight, _) in self.model.items()}
        assert self.leases.next_expiry() == min((due for _, due in self.model.values()), default=None)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
