"""A name in DNS as a registry: asked again whenever its TTL ends.

"There is no such name" is what a server says when a zone was lost in a bad push, and what some resolvers say when they cannot
reach anybody. So it is believed, and answered as empty, only when it was said `DENIALS` times in a row, `DENIAL_PAUSE_S` apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.dns import candidates
from lbproxy.discovery.dns.options import DnsOptions, Record
from lbproxy.domain.errors import RegistryError, ResolveError
from lbproxy.domain.strategy import Random
from lbproxy.wire.records import Addresses, Kind, RecordResolver, Services

DENIALS: Final = 3
DENIAL_PAUSE_S: Final = 5.0
# Of the TTL, later: so that many names of one TTL are not asked in one burst for ever.
TTL_SPREAD: Final = 0.1
WHOLE_S: Final = 30.0  # for an answer with all its targets
AT_ONCE: Final = 16  # targets
MAX_TARGETS: Final = 1024  # of a service, whose addresses the server does not tell beside it

_KINDS: Final[dict[Record, tuple[Kind, ...]]] = {"a": ("A",), "aaaa": ("AAAA",), "both": ("A", "AAAA")}
_DENIED: Final = Answer(())


class DnsRegistry:
    """A `Registry` over one name. Owns no socket between two questions."""

    def __init__(
        self,
        options: DnsOptions,
        resolver: RecordResolver,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: Random,
    ) -> None:
        self._options = options
        self._resolver = resolver
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._due_at: float | None = None  # None: at once
        self._denied = False  # believed

    async def next(self) -> Answer:
        if self._due_at is not None:
            await self._sleep(max(0.0, self._due_at - self._clock()))
        self._due_at = None
        denials = DENIALS if self._denied else 1
        try:
            answer, ttl_s = await self._ask()
            while answer is None and denials < DENIALS:
                await self._sleep(DENIAL_PAUSE_S)
                answer, ttl_s = await self._ask()
                denials += 1
        except RegistryError:
            self._denied = False  # no longer in a row
            raise
        # Not before: what was believed is so for `confirm` until this answer has come.
        self._denied = answer is None
        ttl_s = max(self._options.ttl_min_s, min(ttl_s, self._options.ttl_max_s))
        self._due_at = self._clock() + ttl_s * (1.0 + TTL_SPREAD * self._rng.random())
        return _DENIED if answer is None else answer

    async def confirm(self) -> Answer:
        """A name that is denied only now is no confirmation: raises, unless `next` has come to believe it."""
        answer, _ = await self._ask()
        if answer is not None:
            return answer
        if self._denied:
            return _DENIED
        raise RegistryError(f"{self._options.name}: no such name or record, said for the first time")

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def _ask(self) -> tuple[Answer | None, float]:
        """The answer and its TTL; None where the name, or a record of this kind, is denied."""
        options = self._options
        try:
            async with asyncio.timeout(max(WHOLE_S, options.timeout_s)):
                if options.record == "srv":
                    return await self._ask_services()
                found = await self._resolver.addresses(options.name, _KINDS[options.record])
        except ResolveError as error:
            raise RegistryError(f"{error}{_asked(options.servers)}") from error
        except TimeoutError as error:
            raise RegistryError(f"{options.name}: its targets took more than {WHOLE_S:g} s") from error
        assert options.port is not None
        answer = Answer(candidates.of_addresses(found.addresses, options.port)) if found.addresses else None
        return answer, found.ttl_s

    async def _ask_services(self) -> tuple[Answer | None, float]:
        found = await self._resolver.services(self._options.name)
        if not found.services:
            return None, found.ttl_s
        if candidates.is_absent(found.services):
            return Answer(()), found.ttl_s
        addresses, ttl_s = await self._targets(found)
        return Answer(candidates.of_services(found.services, addresses)), ttl_s

    async def _targets(self, found: Services) -> tuple[dict[str, tuple[str, ...]], float]:
        """The addresses of every target, and the least TTL. Raises ResolveError for one that has none: without it, the answer would be
        a part."""
        targets = sorted({each.target for each in found.services} - {candidates.NO_TARGET})
        addresses = {target: found.ipv4[target] for target in targets if target in found.ipv4}
        unknown = [target for target in targets if target not in addresses]
        if len(unknown) > MAX_TARGETS:
            raise ResolveError(
                self._options.name,
                f"{len(unknown)} targets without an address beside them, at most {MAX_TARGETS}",
                retryable=True,
            )
        ttl_s = found.ttl_s
        for start in range(0, len(unknown), AT_ONCE):
            batch = unknown[start : start + AT_ONCE]
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._target(target, found), name=f"resolve target {target}")
                    for target in batch
                ]
            for target, task in zip(batch, tasks, strict=True):
                told = task.result()
                if isinstance(told, ResolveError):
                    raise told
                addresses[target] = told.addresses
                ttl_s = min(ttl_s, told.ttl_s)
        return addresses, ttl_s

    async def _target(self, target: str, found: Services) -> Addresses | ResolveError:
        """What one target stands for."""
        beside = found.ipv6.get(target, ())
        try:
            told = await self._resolver.addresses(f"{target}.", ("A",) if beside else ("A", "AAAA"))
        except ResolveError as error:
            return error
        ipv4 = tuple(ip for ip in told.addresses if ":" not in ip)
        if told.addresses:
            return Addresses(ipv4 or told.addresses, told.ttl_s)
        if beside:
            return Addresses(beside, found.ttl_s)
        return ResolveError(self._options.name, f"its target {target} has no address", retryable=True)


def _asked(servers: Sequence[tuple[str, int]]) -> str:
    """Who did not know, where the configuration names them."""
    return f" (asked: {', '.join(f'{host} port {port}' for host, port in servers)})" if servers else ""
