"""What a source says exists: endpoints as told, before anything is known of how they behave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lbproxy.domain.address import Address

MAX_WEIGHT: Final = 65535  # Consul's own bound on a service weight
NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint as a source describes it. `weight` 0 means: no new sessions. `priority` 0 is the first tier.
    `max_connections` None means no limit. `unverified`: remembered from an earlier run, and not confirmed by its source yet."""

    address: Address
    weight: int = 1
    priority: int = 0
    zone: str | None = None
    max_connections: int | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
    unverified: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """A full answer, never a part: everything that exists right now, one Member an address, in the source's order."""

    members: tuple[Member, ...]

    @staticmethod
    def of(members: tuple[Member, ...]) -> Membership:
        """Fold duplicate addresses (the first one stands): two ids on one address are one endpoint."""
        unique: dict[Address, Member] = {}
        for member in members:
            unique.setdefault(member.address, member)
        return Membership(tuple(unique.values()))


@dataclass(frozen=True, slots=True)
class Difference:
    """From one full answer to the next: `told` are new or have changed, in the answer's order; `gone` are no longer named."""

    told: tuple[Member, ...]
    gone: tuple[Address, ...]
