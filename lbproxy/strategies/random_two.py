"""Two weighted draws, the one with fewer sessions for its weight wins ("power of two choices")."""

from __future__ import annotations

from collections.abc import Collection

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Snapshot
from lbproxy.strategies.draws import NOTHING, ROUNDS, Draws


class RandomTwo:
    """The two are different endpoints when there are two. On a tie the first draw stands, so that shares follow the weights
    exactly while nothing is busy."""

    __slots__ = ("_draws",)

    def __init__(self) -> None:
        self._draws = NOTHING

    def rebuild(self, snapshot: Snapshot) -> None:
        """O(n)."""
        self._draws = Draws(snapshot.endpoints, snapshot.weights)

    def update(self, snapshot: Snapshot, gone: Collection[Endpoint], came: Collection[Endpoint]) -> None:  # noqa: ARG002
        """O(n), of which each step is a machine instruction or two."""
        self.rebuild(snapshot)

    def pick(self, snapshot: Snapshot, context: Context) -> Endpoint | None:  # noqa: ARG002 - the table holds it
        draws = self._draws
        if not draws.endpoints:
            return None
        for _ in range(ROUNDS):
            endpoint = _better(draws, context)
            if endpoint is not None:
                return endpoint
        first = draws.from_place(draws.one(context.rng), context)
        if first is None:
            return None
        second = draws.from_place(draws.one(context.rng), context)
        return draws.endpoints[first if second is None or not _less(draws, second, first) else second]

    def acquired(self, endpoint: Endpoint) -> None:
        pass  # sessions are read from the endpoints at the draw

    def released(self, endpoint: Endpoint) -> None:
        pass  # sessions are read from the endpoints at the draw


def _better(draws: Draws, context: Context) -> Endpoint | None:
    rng = context.rng
    tried = context.tried
    first = draws.one(rng)
    one = draws.endpoints[first]
    usable = not one.full and not (tried and one in tried)
    if len(draws.endpoints) > 1:
        second = draws.other(rng, first)
        other = draws.endpoints[second]
        if (not usable or _less(draws, second, first)) and not other.full and not (tried and other in tried):
            return other
    return one if usable else None


def _less(draws: Draws, place: int, other: int) -> bool:
    """Whether the endpoint at `place` has fewer sessions for its weight than the one at `other`."""
    ours, theirs = draws.endpoints[place].active, draws.endpoints[other].active
    return ours * draws.weights[other] < theirs * draws.weights[place]
