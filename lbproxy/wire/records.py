"""Records of DNS as they stand: addresses and services (SRV, RFC 2782) of one name, and the truth about what there is not.

Three outcomes: records; none, which is an answer too, if the server is one that can know; and a failure (SERVFAIL, REFUSED,
silence, garbage, a referral, an alias without an end), which raises. The hosts file is not looked at. Nothing is cached.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, cast

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.SRV
import dns.resolver
import dns.rrset

from lbproxy.domain.address import normalise_ip
from lbproxy.domain.errors import ResolveError
from lbproxy.wire.datagrams import BACKEND
from lbproxy.wire.nameservers import NameServers, candidates, in_words, refuse_part

Kind = Literal["A", "AAAA", "SRV"]

MAX_ALIASES: Final = 8
MAX_TTL_S: Final = 86400
MAX_QUESTIONS: Final = 16  # in flight, a socket each

_NO_ADDRESSES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Addresses:
    """IP literals, IPv4 first, each family by number; empty: authoritatively none. `ttl_s` as told, of the negative answer too."""

    addresses: tuple[str, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record; `target` is lower case without the trailing dot, and "." where it was the root."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Services:
    """SRV records in an order of their own; empty: authoritatively none. `ipv4` and `ipv6` are what the server told beside them of
    their targets: for a family, all or nothing of a target. `ttl_s` is the least of all of these."""

    services: tuple[Service, ...]
    ttl_s: float
    ipv4: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_ADDRESSES)
    ipv6: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_ADDRESSES)


@dataclass(frozen=True, slots=True)
class _Told:
    """What one question brought. `response` is None for a name that does not exist."""

    records: dns.rrset.RRset | None
    ttl_s: float
    response: dns.message.Message | None


class RecordResolver:
    """Asks `servers`; each question takes at most `timeout_s`. Opens sockets only while it asks."""

    def __init__(self, servers: NameServers, timeout_s: float) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._questions = asyncio.Semaphore(MAX_QUESTIONS)

    async def addresses(self, name: str, kinds: Sequence[Kind]) -> Addresses:
        """Every address of `name` in the families of `kinds` (A, AAAA). Raises ResolveError, also when one family failed: a part is
        no answer."""
        told = await self._ask_all(name, kinds)
        found = {
            normalise_ip(cast("dns.rdtypes.IN.A.A", record).address)
            for each in told
            for record in each.records or ()
        }
        ttl_s = min(each.ttl_s for each in told if bool(each.records) == bool(found))
        return Addresses(_sorted(found), ttl_s)

    async def services(self, name: str) -> Services:
        """The SRV records of `name`. Raises ResolveError."""
        (told,) = await self._ask_all(name, ("SRV",))
        if told.records is None or told.response is None:
            return Services((), told.ttl_s)
        services = {_service(cast("dns.rdtypes.IN.SRV.SRV", record)) for record in told.records}
        ordered = sorted(services, key=lambda each: (each.priority, each.target, each.port, each.weight))
        beside = _Beside(told.response, {each.target for each in services})
        return Services(tuple(ordered), min(told.ttl_s, beside.ttl_s), beside.ipv4, beside.ipv6)

    async def _ask_all(self, name: str, kinds: Sequence[Kind]) -> list[_Told]:
        """Every kind of the first absolute name that has any; all empty where none has. A failure is no reason to go on to the next
        search domain: it might know a quite different host."""
        resolver = self._servers.resolver(name)
        told: list[_Told] = []
        try:
            names = list(candidates(resolver, name))
        except (dns.exception.DNSException, UnicodeError) as error:
            raise ResolveError(name, in_words(error), retryable=True) from error
        for candidate in names:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._ask(resolver, candidate, kind), name=f"resolve {kind} {name}")
                    for kind in kinds
                ]
            answers = [task.result() for task in tasks]
            failures = [each for each in answers if isinstance(each, str)]
            if failures:
                raise ResolveError(name, "; ".join(dict.fromkeys(failures)), retryable=True)
            told = [each for each in answers if isinstance(each, _Told)]
            if any(each.records for each in told):
                break
        return told

    async def _ask(
        self, resolver: dns.asyncresolver.Resolver, name: dns.name.Name, kind: Kind
    ) -> _Told | str:
        """One question; what went wrong, in words. A truncated answer is asked for again over TCP."""
        try:
            async with self._questions:
                answer = await resolver.resolve(
                    name,
                    kind,
                    search=False,
                    raise_on_no_answer=False,
                    lifetime=self._timeout_s,
                    backend=BACKEND,
                )
            refuse_part(answer.response)
            told = _Told(answer.rrset, float(answer.chaining_result.minimum_ttl), answer.response)
            aliases = len(answer.chaining_result.cnames)
        except dns.resolver.NXDOMAIN as error:
            response: dns.message.QueryMessage = error.response(name)  # type: ignore[no-untyped-call]
            chain = response.resolve_chaining()
            told, aliases = _Told(None, float(chain.minimum_ttl), response), len(chain.cnames)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            return in_words(error)
        if aliases > MAX_ALIASES:
            return f"more than {MAX_ALIASES} aliases, one behind the other"
        return told if told.records else _denied(told, aliases)


def _denied(told: _Told, aliases: int) -> _Told | str:
    """An answer without records, if the server is one that can know that there are none (RFC 2308, 2)."""
    response = told.response
    assert response is not None
    kinds = {rrset.rdtype for rrset in response.authority}
    if dns.rdatatype.SOA in kinds or response.rcode() == dns.rcode.NXDOMAIN:
        return told
    if dns.rdatatype.NS in kinds and not response.flags & dns.flags.AA:
        return "the name server answers with a referral: it is no resolver, nor in charge of this name"
    if aliases and not response.flags & dns.flags.RA:
        return "an alias whose target the name server does not know"
    return told


class _Beside:
    """The targets' addresses in the additional section. A whole record set or nothing: RFC 2181, 9."""

    def __init__(self, response: dns.message.Message, targets: set[str]) -> None:
        self.ipv4: dict[str, tuple[str, ...]] = {}
        self.ipv6: dict[str, tuple[str, ...]] = {}
        self.ttl_s = float(MAX_TTL_S)
        families = {dns.rdatatype.A: self.ipv4, dns.rdatatype.AAAA: self.ipv6}
        for rrset in response.additional:
            name = _plain(rrset.name)
            if rrset.rdclass == dns.rdataclass.IN and rrset.rdtype in families and name in targets:
                found = {normalise_ip(cast("dns.rdtypes.IN.A.A", record).address) for record in rrset}
                families[rrset.rdtype][name] = _sorted(found)
                self.ttl_s = min(self.ttl_s, float(rrset.ttl))


def _service(record: dns.rdtypes.IN.SRV.SRV) -> Service:
    return Service(record.priority, record.weight, record.port, _plain(record.target))


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _sorted(addresses: set[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=lambda ip: (":" in ip, int(ipaddress.ip_address(ip)))))
