"""The live endpoint: one object an address for as long as the upstream knows it, with its counters as plain integers.

The pool is its only writer, on the event loop; strategies, metrics and the admin pages read it.
"""

from __future__ import annotations

from enum import IntFlag

from lbproxy.domain.address import Address, SockAddress, sockaddr
from lbproxy.domain.errors import ConnectFailure
from lbproxy.domain.membership import Member


class Ineligible(IntFlag):
    """Why an endpoint takes no new sessions: one bit a cause, so that causes come and go independently. 0 is eligible."""

    # The enum's own is a Python function, and this is asked at every end of a session.
    __bool__ = int.__bool__

    DRAINED = 1  # by an operator
    REMOVED = 2  # its source no longer names it
    WEIGHT_ZERO = 4


class Endpoint:
    """Identity is the normalised address within one upstream. `active` counts leases (from the moment of choice), `total`
    sessions that were connected."""

    __slots__ = (
        "active",
        "address",
        "connect_failures",
        "failure_streak",
        "ineligible",
        "label",
        "max_connections",
        "member",
        "priority",
        "removed_at",
        "slot",
        "sockaddr",
        "total",
        "weight",
        "weight_override",
    )

    def __init__(self, member: Member, label: str | None = None) -> None:
        self.address: Address = member.address
        self.sockaddr: SockAddress = sockaddr(member.address)
        self.label = label or str(member.address)
        self.member = member
        self.weight = member.weight  # in force; an operator's override wins over the member's
        self.weight_override: int | None = None
        self.priority = member.priority
        self.max_connections = member.max_connections
        self.ineligible = Ineligible(0)
        self.removed_at: float | None = None
        self.active = 0
        self.total = 0
        self.connect_failures: dict[ConnectFailure, int] = {}
        self.failure_streak = 0  # consecutive failed connects; local failures never count
        self.slot = -1  # the relay's byte counter slot; -1 until `app` has opened one

    @property
    def full(self) -> bool:
        return self.max_connections is not None and self.active >= self.max_connections

    @property
    def unverified(self) -> bool:
        """Remembered from the disk, and neither confirmed by its source nor reached by a session yet."""
        return self.member.unverified and not self.total

    def __repr__(self) -> str:
        return f"<Endpoint {self.label} weight={self.weight} active={self.active} ineligible={self.ineligible!r}>"
