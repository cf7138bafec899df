"""Host names to addresses, without ever blocking the event loop: the hosts file first, then DNS for A and AAAA at once.

Nothing is cached here: who asks keeps the answer for its TTL. Why dnspython: docs/decisions/0004-host-names.md
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from lbproxy.domain.address import AddressError, normalise_ip
from lbproxy.domain.errors import ResolveError
from lbproxy.wire.datagrams import BACKEND
from lbproxy.wire.hosts import HostsFile
from lbproxy.wire.nameservers import NameServers, candidates, in_words, refuse_part

IpFamily = Literal["inet", "inet6"]

LIFETIME_S: Final = 5.0  # resolv.conf(5)'s own default for one try
OTHER_FAMILY_S: Final = 1.0  # how long a family may be late once the other one has given addresses
MIN_TTL_S: Final = 1.0
MAX_TTL_S: Final = 3600.0
INCOMPLETE_TTL_S: Final = 30.0  # a family that did not answer is asked again soon
HOSTS_TTL_S: Final = 10.0  # the hosts file knows no TTL, and looking at it is one stat
MAX_ADDRESSES: Final = 256
MAX_QUESTIONS: Final = 16  # names in flight, two sockets each: a thousand names must not take all descriptors

_RECORD: Final[dict[IpFamily, dns.rdatatype.RdataType]] = {
    "inet": dns.rdatatype.A,
    "inet6": dns.rdatatype.AAAA,
}
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Resolution:
    """Normalised IP literals, IPv4 first, each family sorted by number; at most MAX_ADDRESSES.

    `ttl_s` lies within [MIN_TTL_S, MAX_TTL_S]. `missing` names the families that gave no answer (unlike one that said there are
    none): what was known of them before still stands. `dropped` counts addresses beyond the limit.
    """

    addresses: tuple[str, ...]
    ttl_s: float
    missing: tuple[IpFamily, ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one family said, authoritatively: no addresses is an answer, too."""

    addresses: frozenset[str]
    ttl_s: float


class Resolver:
    """Asks the system's resolvers, or the one `nameserver` (IP literal, port) given. Opens sockets only while it asks."""

    def __init__(
        self,
        nameserver: tuple[str, int] | None = None,
        *,
        search: tuple[str, ...] = (),
        hosts_path: Path = Path("/etc/hosts"),
        resolv_conf_path: Path = Path("/etc/resolv.conf"),
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """`search` counts beside a given `nameserver` only; otherwise resolv.conf says."""
        self._hosts = HostsFile(hosts_path)
        self._lifetime_s = lifetime_s
        self._questions = asyncio.Semaphore(MAX_QUESTIONS)
        self._servers = NameServers(
            () if nameserver is None else (nameserver,), search=search, resolv_conf_path=resolv_conf_path
        )

    async def resolve(self, name: str) -> Resolution:
        """Every address of `name`, within `lifetime_s`, once it is its turn.

        Raises ResolveError; not retryable when DNS says that there is no such name, or no address of either family.
        """
        with contextlib.suppress(AddressError):  # most often it is a name, which is no error
            return Resolution((normalise_ip(name),), MAX_TTL_S)
        plain = name.rstrip(".").lower()
        pinned = await self._hosts.addresses(plain)
        if plain == "localhost" or plain.endswith(".localhost"):  # RFC 6761, 6.3: never asked of DNS
            pinned = tuple(ip for ip in pinned if ipaddress.ip_address(ip).is_loopback) or _LOOPBACK
        if pinned:
            return _resolution(frozenset(pinned), HOSTS_TTL_S, ())
        async with self._questions:
            return await self._ask_dns(name)

    async def _ask_dns(self, name: str) -> Resolution:
        resolver = self._servers.resolver(name)
        deadline = asyncio.get_running_loop().time() + self._lifetime_s
        for candidate in candidates(resolver, name):
            answers, errors = await self._ask_both(resolver, candidate, deadline)
            found = frozenset[str]().union(*(answer.addresses for answer in answers.values()))
            if found:
                ttl_s = min(answer.ttl_s for answer in answers.values() if answer.addresses)
                return _resolution(found, ttl_s, tuple(errors))
            # A failure is no reason to go on to the next search domain: it might know a quite different host.
            if errors:
                raise ResolveError(name, "; ".join(dict.fromkeys(errors.values())), retryable=True)
        raise ResolveError(name, "no such name, or it has no addresses", retryable=False)

    async def _ask_both(
        self, resolver: dns.asyncresolver.Resolver, name: dns.name.Name, deadline: float
    ) -> tuple[dict[IpFamily, _Answer], dict[IpFamily, str]]:
        """What each family answered until `deadline` (of the loop's clock), or else why it did not."""
        loop = asyncio.get_running_loop()
        answers: dict[IpFamily, _Answer] = {}
        errors: dict[IpFamily, str] = {}

        async def ask(family: IpFamily, limit: asyncio.Timeout) -> None:
            try:
                answer = await _ask(resolver, name, family, self._lifetime_s)
            except (dns.exception.DNSException, OSError, EOFError) as error:
                errors[family] = in_words(error)
                return
            answers[family] = answer
            if answer.addresses:
                limit.reschedule(min(deadline, loop.time() + OTHER_FAMILY_S))

        # What is late is no error of its own: it is missing from the answers, and said so below.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline) as limit, asyncio.TaskGroup() as group:
                for family in _RECORD:
                    group.create_task(ask(family, limit), name=f"resolve {family} {name}")
        for family in _RECORD:
            if family not in answers:
                errors.setdefault(family, "the name servers do not answer")
        return answers, errors


async def _ask(
    resolver: dns.asyncresolver.Resolver, name: dns.name.Name, family: IpFamily, lifetime_s: float
) -> _Answer:
    """One question. A truncated answer is asked for again over TCP. Raises DNSException, OSError, EOFError."""
    try:
        answer = await resolver.resolve(
            name,
            _RECORD[family],
            search=False,
            raise_on_no_answer=False,
            lifetime=lifetime_s,
            backend=BACKEND,
        )
    except dns.resolver.NXDOMAIN:
        return _Answer(frozenset(), MIN_TTL_S)
    refuse_part(answer.response)
    ttl_s = float(answer.chaining_result.minimum_ttl)  # of the answer and every alias on the way to it
    return _Answer(frozenset(normalise_ip(cast("str", record.address)) for record in answer), ttl_s)


def _resolution(addresses: frozenset[str], ttl_s: float, missing: tuple[IpFamily, ...]) -> Resolution:
    ordered = sorted(addresses, key=lambda ip: (":" in ip, int(ipaddress.ip_address(ip))))
    cap_s = INCOMPLETE_TTL_S if missing else MAX_TTL_S
    return Resolution(
        tuple(ordered[:MAX_ADDRESSES]),
        max(MIN_TTL_S, min(cap_s, ttl_s)),
        missing,
        max(0, len(ordered) - MAX_ADDRESSES),
    )
