"""The question a strategy answers, and the two things it is given: an immutable snapshot, and the context of one pick."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from lbproxy.domain.address import Address
from lbproxy.domain.endpoint import Endpoint


class Random(Protocol):
    """The part of `random.Random` that strategies use, so that a test can script it."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The eligible endpoints of one tier, in configured order, with the weights in force (each at least 1).

    Counts and "full" are live values on the endpoints, not in here. Publishing a new one is one assignment.
    """

    endpoints: tuple[Endpoint, ...]
    weights: tuple[int, ...]


class Context:
    """One session's picks. `tried` holds the endpoints that already failed it; `now` is monotonic seconds."""

    __slots__ = ("client", "destination", "key", "now", "rng", "tried")

    def __init__(self, now: float, rng: Random, client: str, destination: Address | None = None) -> None:
        self.now = now
        self.rng = rng
        self.client = client  # normalised IP literal, or "" for a unix client
        self.key: bytes | None = None  # the routing key, for strategies that hash
        self.destination = destination  # where the client meant to go (`original_dst` upstreams)
        self.tried: Collection[Endpoint] = ()


class Strategy(Protocol):
    """Which endpoint next. Sees no socket, no clock, no health; keeps its tables in step by the notices."""

    def rebuild(self, snapshot: Snapshot) -> None:
        """The members or their weights changed. Position and order carry over for those that stay."""

    def update(self, snapshot: Snapshot, gone: Collection[Endpoint], came: Collection[Endpoint]) -> None:
        """As `rebuild`, told what differs: `gone` were in the snapshot before, `came` are new in it (behind all others) or have another
        weight. A few of ten thousand must not cost what a rebuild costs."""

    def pick(self, snapshot: Snapshot, context: Context) -> Endpoint | None:
        """An endpoint that is neither full nor in `context.tried`; None when there is none."""

    def acquired(self, endpoint: Endpoint) -> None:
        """`endpoint.active` has just gone up by one."""

    def released(self, endpoint: Endpoint) -> None:
        """`endpoint.active` has just gone down by one. The endpoint may no longer be in the snapshot."""
