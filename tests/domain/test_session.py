"""The table of a session's moves, and the two small instruments beside it: back-off and histogram."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.backoff import Backoff
from lbproxy.domain.histogram import CONNECT_BOUNDS_S, DURATION_BOUNDS_S, Histogram
from lbproxy.domain.session import MOVES, State


def test_every_session_can_end_from_everywhere_and_never_goes_on_then() -> None:
    assert set(MOVES) == set(State)
    assert MOVES[State.ENDED] == frozenset()
    assert all(State.ENDED in moves for state, moves in MOVES.items() if state is not State.ENDED)


def test_every_state_can_be_reached() -> None:
    reached = {State.ACCEPTED}
    while more := {move for state in reached for move in MOVES[state]} - reached:
        reached |= more
    assert reached == set(State)


@given(st.integers(0, 10_000), st.integers())
def test_a_wait_lies_between_its_floor_and_what_its_turn_allows(attempt: int, seed: int) -> None:
    backoff = Backoff(base_s=0.5, cap_s=30.0, floor_s=0.1)
    wait_s = backoff.wait_s(attempt, random.Random(seed))
    assert 0.1 <= wait_s <= min(30.0, 0.5 * 2.0 ** min(attempt, 20))


@pytest.mark.parametrize("bounds", [CONNECT_BOUNDS_S, DURATION_BOUNDS_S])
def test_an_observation_counts_up_to_and_with_its_bound(bounds: tuple[float, ...]) -> None:
    assert all(low < high for low, high in pairwise(bounds))
    for place, bound in enumerate(bounds):
        histogram = Histogram(bounds)
        for value in (bound, bound * 1.0001):
            histogram.observe(value)
        assert histogram.counts[place : place + 2] == [1, 1]
        assert (sum(histogram.counts), histogram.sum) == (2, bound + bound * 1.0001)
