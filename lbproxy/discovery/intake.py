"""From a registry's candidates to members: vetted, and their host names resolved, without a long step on the loop.

What an entry became is kept while the answers hold it: of ten thousand unchanged entries the same objects come out again, and
whoever compares them is done at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.names import RETRY, member_of, merged
from lbproxy.discovery.options import StaticEndpoint
from lbproxy.discovery.vetting import Refusal, undialable, vet
from lbproxy.domain.address import Address, HostName, ip_address
from lbproxy.domain.errors import ResolveError
from lbproxy.domain.membership import Difference, Member, Membership
from lbproxy.domain.strategy import Random
from lbproxy.wire.resolver import Resolution

SLICE: Final = 250  # entries between two turns of the loop: well below a millisecond of work
ASKED_AT_ONCE: Final = 8
IDENTITY_CHARACTERS: Final = 80  # of a key or id that a log line repeats
NAMES_WITHIN_S: Final = 10.0  # of one answer: the registry is not kept waiting for a DNS that is silent

Refused = Counter[str]


class Intake:
    """One source's. The caller sees to it that one answer is taken in after the other."""

    def __init__(
        self,
        limit: int,
        resolve: Callable[[str], Awaitable[Resolution]],
        is_own: Callable[[Address], bool],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._limit = limit
        self._resolve = resolve
        self._is_own = is_own
        self._clock = clock
        self._rng = rng
        self._candidates: Sequence[Candidate] = ()
        self._known: dict[Candidate, Member | StaticEndpoint | Refusal] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}  # the last good ones of each name
        self._due: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self.examples: dict[
            str, str
        ] = {}  # of what was refused last: for each reason the first entry, or where it stands

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The last good addresses of each host name that has any."""
        return {name: known for name, known in self._addresses.items() if known}

    def remember(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Last good addresses from before: a predecessor's, or from the disk."""
        self._addresses.update(names)

    @property
    def next_due(self) -> float | None:
        """When a host name is to be asked for again; None without names."""
        return min(self._due.values(), default=None)

    async def members(self, candidates: Sequence[Candidate]) -> tuple[Membership, Refused]:
        """The answer's members, and how many entries were refused for which reason. A name that was never seen is resolved first; of one
        that does not resolve the last good addresses stand."""
        known: dict[Candidate, Member | StaticEndpoint | Refusal] = {}
        names = set()
        for at, candidate in enumerate(candidates):
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            became = self._known.get(candidate)
            if became is None:
                became = vet(candidate)
            if isinstance(became, StaticEndpoint):
                assert isinstance(became.target, HostName)
                names.add(became.target.name)
            known[candidate] = became
        self._candidates = candidates
        self._known = known
        for gone in self._addresses.keys() - names:
            self._due.pop(gone, None)
            self._failures.pop(gone, None)
            del self._addresses[gone]
        await self._ask(sorted(names - self._due.keys()))
        return await self._collect()

    async def refresh(self, now: float) -> bool:
        """Ask again for the names that are due; whether an address has changed."""
        before = dict(self._addresses)
        await self._ask([name for name, due in self._due.items() if due <= now])
        return self._addresses != before

    async def ask_again(self) -> str:
        """Ask for every name that has addresses, whether it is due or not; why it can not be said that these still hold, "" if it can."""
        failing = await self._ask(sorted(self.names))
        return f"{', '.join(failing[:3])}: no answer about this name" if failing else ""

    async def again(self) -> tuple[Membership, Refused]:
        """The last answer with what its names resolve to by now."""
        return await self._collect()

    def vet_again(self, membership: Membership) -> tuple[Membership, Refused]:
        """Members from the disk, by the rules of today."""
        refused: Refused = Counter()
        self.examples = {}
        return Membership(tuple(self._dialable(membership.members, refused))), refused

    async def _collect(self) -> tuple[Membership, Refused]:
        refused: Refused = Counter()
        self.examples = {}
        found: dict[Address, Member] = {}
        taken = 0
        for at, candidate in enumerate(self._candidates):
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            became = self._known[candidate]
            if isinstance(became, Refusal):
                self._refuse_unread(refused, became, at)
                continue
            if taken == self._limit:
                self._refuse_unread(refused, Refusal.LIMIT, at)
                continue
            taken += 1
            members = (became,) if isinstance(became, Member) else tuple(self._of_name(became, refused))
            for member in self._dialable(members, refused):
                found.setdefault(member.address, member)
        return Membership(tuple(found.values())), refused

    def _dialable(self, members: Sequence[Member], refused: Refused) -> Iterator[Member]:
        for member in members:
            why = undialable(member.address.host)
            if why is None and self._is_own(member.address):
                why = Refusal.OWN_LISTENER
            if why is None:
                yield member
            else:
                self._refuse(refused, why, member.address.host, member.address.port)

    def _refuse(self, refused: Refused, why: Refusal, host: str, port: int) -> None:
        refused[why] += 1
        self.examples.setdefault(why, f"{host} port {port}")

    def _refuse_unread(self, refused: Refused, why: Refusal, at: int) -> None:
        refused[why] += 1
        if why not in self.examples:
            self.examples[why] = _place(self._candidates[at], at)

    def _of_name(self, endpoint: StaticEndpoint, refused: Refused) -> Iterator[Member]:
        assert isinstance(endpoint.target, HostName)
        addresses = self._addresses[endpoint.target.name]
        if not addresses:
            self._refuse(refused, Refusal.UNRESOLVED, endpoint.target.name, endpoint.target.port)
        for ip in addresses:
            yield member_of(endpoint, ip_address(ip, endpoint.target.port))

    async def _ask(self, names: Sequence[str]) -> list[str]:
        """Within `NAMES_WITHIN_S`; what is not reached by then is due at once. Returns the names that gave no whole answer."""
        well: set[str] = set()
        now = self._clock()
        for name in names:
            self._addresses.setdefault(name, ())
            self._due[name] = now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMES_WITHIN_S):
                for start in range(0, len(names), ASKED_AT_ONCE):
                    some = names[start : start + ASKED_AT_ONCE]
                    answered = await asyncio.gather(*map(self._ask_one, some))
                    well.update(name for name, whole in zip(some, answered, strict=True) if whole)
        return [name for name in names if name not in well]

    async def _ask_one(self, name: str) -> bool:
        """Whether there was a whole answer."""
        try:
            resolution = await self._resolve(name)
        except ResolveError:
            self._due[name] = self._clock() + RETRY.wait_s(self._failures[name], self._rng)
            self._failures[name] += 1
            return False
        del self._failures[name]
        self._addresses[name] = merged(self._addresses[name], resolution)
        self._due[name] = self._clock() + resolution.ttl_s
        return not resolution.missing


def _place(candidate: Candidate, at: int) -> str:
    """Where an entry stands that is no endpoint: by its key or id in the registry, else by its number. What was found there is not
    repeated, unless it is an IP address: nobody knows what it is, and under a wrong prefix there may be secrets."""
    ids = [each for key, each in candidate.metadata.items() if key.endswith(("-key", "-id"))]
    place = f"{ids[0][:IDENTITY_CHARACTERS]!a}" if ids else f"entry {at + 1}"
    return f"{place}: {candidate.host} port {candidate.port}" if _is_ip(candidate.host) else place


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def difference(before: Membership, after: Membership) -> Difference:
    """What changed from one to the other; in slices, too."""
    old: dict[Address, Member] = {}
    for at in range(0, len(before.members), SLICE):
        old.update((member.address, member) for member in before.members[at : at + SLICE])
        await asyncio.sleep(0)
    told: list[Member] = []
    for at in range(0, len(after.members), SLICE):
        for member in after.members[at : at + SLICE]:
            known = old.pop(member.address, None)
            if known is not member and known != member:
                told.append(member)
        await asyncio.sleep(0)
    return Difference(tuple(told), tuple(old))
