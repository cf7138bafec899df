"""Weighted draws: a table of cumulative weights, searched by bisection. What `random` and `least_connection` with
`choices` share."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, chain
from typing import Final

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Random

# Draws that hit only full or tried endpoints are repeated this often, then the walk from a drawn place decides. Repeating
# keeps the shares exactly as they should be among those that can be picked; the walk favours who stands behind a row of full
# ones. With half of them full, two draws a round all miss once in 65,536 times.
ROUNDS: Final = 8


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

    def from_place(self, start: int, context: Context) -> int | None:
        """The first place from `start` on, going round, that is neither full nor tried; None when there is none. Looks at no
        more than it must: with one in k usable at about k places."""
        tried = context.tried
        for place in chain(range(start, len(self.endpoints)), range(start)):
            endpoint = self.endpoints[place]
            if not endpoint.full and endpoint not in tried:
                return place
        return None


NOTHING: Final = Draws((), ())
