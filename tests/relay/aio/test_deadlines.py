"""Deadlines on virtual time: never early, at most a tick late, nothing forgotten, nothing kept for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.relay.aio.deadlines import HORIZON_S, TICK_S, Deadlines

times = st.floats(min_value=0, max_value=100, allow_nan=False)
# Ticks are whole numbers times TICK_S: a float's rounding may show at the last digit.
ROUNDING_S = 1e-6


@given(st.lists(times, min_size=1, max_size=50), times)
def test_nothing_is_due_early_or_later_than_a_tick(delays: list[float], start: float) -> None:
    deadlines = Deadlines()
    for key, delay in enumerate(delays):
        deadlines.add(key, start + delay, start)
    called: dict[int, float] = {}
    while (now := deadlines.earliest()) is not None:
        for _, key in deadlines.due(now, 1000):
            called[key] = now
    assert set(called) == set(range(len(delays)))
    for key, delay in enumerate(delays):
        wanted = start + min(delay, HORIZON_S)
        assert wanted - ROUNDING_S <= called[key] <= wanted + TICK_S + ROUNDING_S


@given(st.lists(times, min_size=1, max_size=50), st.integers(min_value=1, max_value=7))
def test_a_limit_delays_but_loses_nothing(delays: list[float], limit: int) -> None:
    deadlines = Deadlines()
    for key, delay in enumerate(delays):
        deadlines.add(key, delay, 0.0)
    found: list[tuple[int, int]] = []
    while len(deadlines):
        some = deadlines.due(1000.0, limit)
        assert 1 <= len(some) <= limit
        found += some
    assert sorted(key for _, key in found) == list(range(len(delays)))
    assert [tick for tick, _ in found] == sorted(tick for tick, _ in found)


@given(st.lists(st.tuples(st.integers(0, 5), times), max_size=40), times)
def test_due_takes_exactly_what_has_come(entries: list[tuple[int, float]], now: float) -> None:
    deadlines = Deadlines()
    ticks = [(deadlines.add(key, at, 0.0), key) for key, at in entries]
    due = deadlines.due(now, 1000)
    assert sorted(due) == sorted(entry for entry in ticks if entry[0] * TICK_S <= now)
    assert len(deadlines) == len(entries) - len(due)
    earliest = deadlines.earliest()
    assert earliest is None or earliest > now


@given(st.lists(times, min_size=1, max_size=30), st.floats(min_value=0.05, max_value=30))
def test_key_that_is_added_again_ends_at_its_real_deadline(activity: list[float], idle: float) -> None:
    """How a relay uses it: bytes move without a word; whoever is called looks, and comes back if it is too early."""
    moments = sorted(activity)
    deadlines = Deadlines()
    deadlines.add(1, idle, 0.0)
    looks = 0
    while True:
        now = deadlines.earliest()
        assert now is not None
        ((_, key),) = deadlines.due(now, 10)
        looks += 1
        before = [moment for moment in moments if moment <= now]
        last = before[-1] if before else 0.0
        if last + idle <= now + ROUNDING_S:
            break
        deadlines.add(key, last + idle, now)
    assert now <= last + idle + TICK_S + ROUNDING_S
    # Two looks an idle time or horizon, whichever is shorter (a byte that moves a deadline came after the look before):
    # never one a byte.
    assert looks <= 3 + 2 * now / min(idle, HORIZON_S)


@pytest.mark.parametrize("count", [1, 1000])
def test_entries_of_one_tick_share_a_bucket(count: int) -> None:
    deadlines = Deadlines()
    assert len({deadlines.add(key, 1.0, 0.0) for key in range(count)}) == 1
    assert len(deadlines) == count


def test_no_entry_is_further_away_than_the_horizon() -> None:
    """Sessions that have ended leave entries behind: for so long, and no longer."""
    deadlines = Deadlines()
    for key in range(100):
        deadlines.add(key, 3600.0 * key, 0.0)
    assert len(deadlines.due(HORIZON_S + TICK_S, 1000)) == 100
    assert deadlines.earliest() is None
