"""What a pick gives: the right to one session on one endpoint, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from lbproxy.domain.address import Address
from lbproxy.domain.endpoint import Endpoint


class Exhausted(Enum):
    """Why nothing was picked."""

    NO_ENDPOINT = "no_endpoint"  # nothing is eligible: neither pausing nor trying again helps this session
    FULL = "full"  # all that is eligible is at its limit
    # An eligible endpoint has room, but this session tried it: pause, clear `tried`, ask again.
    TRIED = "tried"


class Lease:
    """One session on `endpoint`, counted since the moment of choice. `address` is what to dial.

    Whoever holds it calls `release()`, however the session ends. Only the first call counts, the others do nothing.
    """

    __slots__ = ("_give_back", "address", "endpoint")

    def __init__(self, endpoint: Endpoint, address: Address, give_back: Callable[[Endpoint], None]) -> None:
        self.endpoint = endpoint
        self.address = address
        self._give_back: Callable[[Endpoint], None] | None = give_back

    def release(self) -> None:
        give_back = self._give_back
        if give_back is not None:
            self._give_back = None
            give_back(self.endpoint)

    def __repr__(self) -> str:
        state = "released" if self._give_back is None else "held"
        return f"<Lease {self.endpoint.label} {self.address} {state}>"
