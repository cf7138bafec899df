"""Members, answers and a registry that says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import Member, Membership


def address(number: int) -> Address:
    return ip_address(f"10.0.{number // 250}.{number % 250 + 1}", 80)


def members(*numbers: int, weight: int = 1) -> Membership:
    return Membership(tuple(Member(address(number), weight=weight) for number in numbers))


def numbers(membership: Membership | None) -> list[int]:
    """Back again, in order."""
    assert membership is not None
    found = []
    for member in membership.members:
        _, _, third, fourth = map(int, member.address.host.split("."))
        found.append(third * 250 + fourth - 1)
    return found


def candidates(*numbers: int, weight: int = 1) -> tuple[Candidate, ...]:
    return tuple(Candidate(address(number).host, 80, weight) for number in numbers)


def answer(*numbers: int, consistent: bool = True, regressed: bool = False) -> Answer:
    return Answer(candidates(*numbers), consistent, regressed)


class ScriptedRegistry:
    """`tell` queues what `next` gives or raises; `second_opinion` is what `confirm` says (by default the last answer)."""

    def __init__(self, *told: Answer | RegistryError) -> None:
        self.told: deque[Answer | RegistryError] = deque(told)
        self.last: Answer | RegistryError | None = None
        self.second_opinion: Answer | RegistryError | None = None
        self.asked = self.confirmed = self.closed = 0
        self._more = asyncio.Event()

    def tell(self, *told: Answer | RegistryError) -> None:
        self.told.extend(told)
        self._more.set()

    async def next(self) -> Answer:
        self.asked += 1
        while not self.told:
            self._more.clear()
            await self._more.wait()
        self.last = self.told.popleft()
        return _given(self.last)

    async def confirm(self) -> Answer:
        self.confirmed += 1
        said = self.second_opinion or self.last
        assert said is not None
        return _given(said)

    async def close(self) -> None:
        self.closed += 1


def _given(told: Answer | RegistryError) -> Answer:
    if isinstance(told, RegistryError):
        raise told
    return told


def hosts(membership: Membership) -> Sequence[str]:
    return [str(member.address) for member in membership.members]
