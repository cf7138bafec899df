"""Endpoints, snapshots and contexts for tests of strategies."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

from lbproxy.domain.address import ip_address
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.membership import Member
from lbproxy.domain.strategy import Context, Snapshot, Strategy


def endpoint(number: int, *, limit: int | None = None) -> Endpoint:
    return Endpoint(Member(ip_address("10.0.0.1", number), max_connections=limit))


def fleet(count: int) -> list[Endpoint]:
    return [endpoint(number) for number in range(1, count + 1)]


def snapshot(endpoints: Iterable[Endpoint], weights: Iterable[int] | None = None) -> Snapshot:
    members = tuple(endpoints)
    return Snapshot(members, (1,) * len(members) if weights is None else tuple(weights))


def context(tried: Collection[Endpoint] = (), seed: int = 1) -> Context:
    made = Context(0.0, random.Random(seed), "192.0.2.1")
    made.tried = tried
    return made


class Scripted:
    """Chance that says what it was told, and complains when asked once more."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)

    def randrange(self, stop: int, /) -> int:
        raise AssertionError(f"no strategy asks for randrange({stop})")


def scripted(*values: float) -> Context:
    return Context(0.0, Scripted(*values), "192.0.2.1")


class Driver:
    """A strategy with the counting that a pool does for it."""

    def __init__(
        self, strategy: Strategy, endpoints: Sequence[Endpoint], weights: Iterable[int] | None = None
    ) -> None:
        self.strategy = strategy
        self.snapshot = snapshot(endpoints, weights)
        strategy.rebuild(self.snapshot)

    def rebuild(self, endpoints: Sequence[Endpoint], weights: Iterable[int] | None = None) -> None:
        self.snapshot = snapshot(endpoints, weights)
        self.strategy.rebuild(self.snapshot)

    def pick(self, context: Context) -> Endpoint | None:
        return self.strategy.pick(self.snapshot, context)

    def acquire(self, context: Context) -> Endpoint | None:
        picked = self.pick(context)
        if picked is not None:
            picked.active += 1
            self.strategy.acquired(picked)
        return picked

    def release(self, endpoint: Endpoint) -> None:
        endpoint.active -= 1
        self.strategy.released(endpoint)
