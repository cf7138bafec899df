"""From records to candidates. No I/O.

Of a service's records (SRV, RFC 2782):
- **Priorities** become tiers in their order: the lowest one there is becomes 0, the next one 1. DNS has 65,536 of them and says
  nothing about distances.
- **Weights** are taken as they are. Within a priority where all are 0, all are equal (RFC 2782: "no server selection to do").
  A 0 beside others means "a very small chance" there and "no new sessions" here: such a tier is scaled up by up to 100, so
  that a 1 in its place is small.
- A target stands for its IPv4 addresses, or for its IPv6 ones where it has no other: both would be one server counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lbproxy.discovery.contract import Candidate
from lbproxy.domain.membership import MAX_WEIGHT
from lbproxy.wire.records import Service

SMALL_SHARE: Final = 100
NO_TARGET: Final = "."


def of_addresses(addresses: Iterable[str], port: int) -> tuple[Candidate, ...]:
    """One candidate an address, in the given order."""
    return tuple(Candidate(address, port) for address in addresses)


def is_absent(services: tuple[Service, ...]) -> bool:
    """Whether the service is decidedly not available at this domain: a single record whose target is the root (RFC 2782)."""
    return len(services) == 1 and services[0].target == NO_TARGET


def of_services(
    services: tuple[Service, ...], addresses: Mapping[str, tuple[str, ...]]
) -> tuple[Candidate, ...]:
    """In the order of tiers, targets and ports. `addresses` has every target but the root, which names nobody: beside other records it
    is passed on as it stands, to be refused."""
    tiers = {priority: tier for tier, priority in enumerate(sorted({each.priority for each in services}))}
    scales = {priority: _scale([s.weight for s in services if s.priority == priority]) for priority in tiers}
    return tuple(
        Candidate(
            host,
            each.port,
            _weight(each.weight, scales[each.priority]),
            tiers[each.priority],
            metadata={"target": each.target},
        )
        for each in services
        for host in addresses.get(each.target, (each.target,))
    )


def _scale(weights: list[int]) -> int:
    """What the weights of one priority are multiplied by; 0: they are all the same."""
    greatest = max(weights)
    if greatest == 0:
        return 0
    return 1 if all(weights) else max(1, min(SMALL_SHARE, MAX_WEIGHT // greatest))


def _weight(weight: int, scale: int) -> int:
    return max(1, weight * scale)
