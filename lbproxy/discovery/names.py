"""What is known of an upstream's host names, and when to ask again. No I/O, no clock: answers go in, decisions come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lbproxy.discovery.options import StaticEndpoint
from lbproxy.domain.address import Address, HostName, ip_address
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.strategy import Random
from lbproxy.wire.resolver import Resolution

RETRY: Final = Backoff(base_s=1.0, cap_s=30.0, floor_s=0.25)
_SPREAD: Final = 0.1  # of the TTL, so that many names of one TTL are not asked in one burst for ever
_SPREAD_LIMIT_S: Final = 5.0


@dataclass(slots=True)
class _Name:
    addresses: tuple[str, ...] = ()  # the last good ones; never forgotten
    answered_at: float | None = None
    failures: int = 0  # in a row


class NameTable:
    """The configured endpoints of one upstream with what their names resolved to so far.

    `known` are addresses from before (a reload), used until the first answer. Members stand in the configured order, a name's
    addresses in the resolver's.
    """

    def __init__(
        self, endpoints: tuple[StaticEndpoint, ...], rng: Random, known: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._endpoints = endpoints
        self._rng = rng
        self._names = {
            endpoint.target.name: _Name(known.get(endpoint.target.name, ()))
            for endpoint in endpoints
            if isinstance(endpoint.target, HostName)
        }
        self.membership = self._members()

    @property
    def names(self) -> tuple[str, ...]:
        """The names to ask about, each once."""
        return tuple(self._names)

    @property
    def known(self) -> dict[str, tuple[str, ...]]:
        """Name -> last good addresses, for those that ever had some."""
        return {name: state.addresses for name, state in self._names.items() if state.addresses}

    @property
    def answered_at(self) -> float | None:
        """When the name that waits longest last gave an answer; None while one never did (or there are no names)."""
        times = [state.answered_at for state in self._names.values()]
        known = [time for time in times if time is not None]
        return min(known) if known and len(known) == len(times) else None

    def answered(self, name: str, resolution: Resolution, now: float) -> tuple[bool, float]:
        """Take in an answer: whether the membership changed by it, and in how many seconds to ask again."""
        state = self._names[name]
        state.addresses = merged(state.addresses, resolution)
        state.answered_at = now
        state.failures = 0
        spread_s = min(_SPREAD * resolution.ttl_s, _SPREAD_LIMIT_S) * self._rng.random()
        before, self.membership = self.membership, self._members()
        return self.membership != before, resolution.ttl_s + spread_s

    def failed(self, name: str) -> float:
        """In how many seconds to ask again. What was known stays, whatever the error: an empty or failing DNS is far more often a
        fault of the DNS than of every server behind the name."""
        state = self._names[name]
        state.failures += 1
        return RETRY.wait_s(state.failures - 1, self._rng)

    def _members(self) -> Membership:
        return Membership.of(tuple(member for endpoint in self._endpoints for member in self._of(endpoint)))

    def _of(self, endpoint: StaticEndpoint) -> Iterator[Member]:
        if isinstance(endpoint.target, HostName):
            port = endpoint.target.port
            for ip in self._names[endpoint.target.name].addresses:
                yield member_of(endpoint, ip_address(ip, port))
        else:
            yield member_of(endpoint, endpoint.target)


def merged(before: tuple[str, ...], resolution: Resolution) -> tuple[str, ...]:
    """The answer, with the former addresses of a family that did not answer: silence removes nobody."""
    kept = {
        family: tuple(
            ip
            for ip in (before if family in resolution.missing else resolution.addresses)
            if v6 == (":" in ip)
        )
        for family, v6 in (("inet", False), ("inet6", True))
    }
    return kept["inet"] + kept["inet6"]


def member_of(endpoint: StaticEndpoint, address: Address) -> Member:
    """One address of a configured or discovered endpoint."""
    return Member(
        address,
        weight=endpoint.weight,
        priority=endpoint.priority,
        zone=endpoint.zone,
        max_connections=endpoint.max_connections,
        metadata=endpoint.metadata,
    )
