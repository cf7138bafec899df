"""Weighted draws: a table of cumulative weights, searched by bisection. What `random` and `least_connection` with
`choices` share."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Random

# Draws that hit only full or tried endpoints are repeated this often before everything is looked at. Repeating keeps the
# shares as they should be among those that can be picked; with half of them full, all rounds miss once in 256 times.
ROUNDS: Final = 4


class Draws:
    """Immutable. `endpoints` and `weights` (each at least 1) stand in the snapshot's order; draws give places in them."""

    __slots__ = ("_cumulative", "_equal", "_total", "endpoints", "weights")

    def __init__(self, endpoints: tuple[Endpoint, ...], weights: tuple[int, ...]) -> None:
        self.endpoints = endpoints
        self.weights = weights
        self._cumulative = list(accumulate(weights))
        self._total = self._cumulative[-1] if weights else 0
        # Equal weights need no search: the place is the draw divided by the weight.
        self._equal = weights[0] if weights and min(weights) == max(weights) else 0

    def one(self, rng: Random) -> int:
        """A place, each with its weight's share. There must be one."""
        drawn = int(rng.random() * self._total)  # exact enough: the total is far below 2**53
        return drawn // self._equal if self._equal else bisect_right(self._cumulative, drawn)

    def other(self, rng: Random, first: int) -> int:
        """Another place than `first`, each with its weight's share of what `first` leaves. There must be two."""
        weight = self.weights[first]
        drawn = int(rng.random() * (self._total - weight))
        if drawn >= self._cumulative[first] - weight:
            drawn += weight
        return drawn // self._equal if self._equal else bisect_right(self._cumulative, drawn)

    def usable(self, context: Context) -> Draws | None:
        """A table of those that are neither full nor tried, by looking at all: O(n). None when there are none."""
        tried = context.tried
        places = [i for i, e in enumerate(self.endpoints) if not e.full and e not in tried]
        if not places:
            return None
        return Draws(tuple(self.endpoints[i] for i in places), tuple(self.weights[i] for i in places))


NOTHING: Final = Draws((), ())
