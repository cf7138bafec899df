"""The DNS registry on virtual time: when it asks, what it believes, and that it never answers with a part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import pytest

from lbproxy.discovery.contract import Answer, Registry
from lbproxy.discovery.dns.options import DnsOptions
from lbproxy.discovery.dns.registry import DENIAL_PAUSE_S, DENIALS, MAX_TARGETS, DnsRegistry
from lbproxy.domain.errors import RegistryError, ResolveError
from lbproxy.wire.records import Addresses, Kind, Service, Services
from tests.discovery.virtual import VirtualTime

DENIED_FOR_S = DENIAL_PAUSE_S * (DENIALS - 1)
T = TypeVar("T")
NONE = Addresses((), 5.0)
BROKEN = ResolveError("web.test", "SERVFAIL", retryable=True)
TARGET_BROKEN = ResolveError("b.test", "SERVFAIL", retryable=True)


class Script:
    """A resolver that answers as told; `asked` holds every question."""

    def __init__(self) -> None:
        self.hosts: dict[str, Addresses | ResolveError] = {}
        self.srv: Services | ResolveError = Services((), 5.0)
        self.asked: list[tuple[str, tuple[Kind, ...]]] = []

    async def addresses(self, name: str, kinds: Sequence[Kind]) -> Addresses:
        self.asked.append((name, tuple(kinds)))
        return given(self.hosts[name])

    async def services(self, name: str) -> Services:
        self.asked.append((name, ("SRV",)))
        return given(self.srv)


class Slow(Script):
    """One question, the next after `late` was set, is answered when that event comes."""

    def __init__(self) -> None:
        super().__init__()
        self.late: asyncio.Event | None = None

    async def addresses(self, name: str, kinds: Sequence[Kind]) -> Addresses:
        found = await super().addresses(name, kinds)
        late, self.late = self.late, None
        if late is not None:
            await late.wait()
        return found


def given(answer: T | ResolveError) -> T:
    if isinstance(answer, ResolveError):
        raise answer
    return answer


class Rig:
    def __init__(self, options: DnsOptions, dns: Script | None = None) -> None:
        self.time = VirtualTime()
        self.dns = dns or Script()
        self.registry = DnsRegistry(
            options,
            self.dns,  # type: ignore[arg-type]
            self.time.clock,
            self.time.sleep,
            Random(1),
        )

    async def next(self, within_s: float) -> Answer:
        """The next answer, which must come within that time, and not before the registry has asked again."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.registry.next(), name="next")
            await self.time.advance(within_s)
            assert task.done(), f"no answer within {within_s} s"
        return task.result()

    async def refused(self, within_s: float = 0.0) -> str:
        with pytest.raises(BaseExceptionGroup) as caught:
            await self.next(within_s)
        (error,) = caught.value.exceptions
        assert isinstance(error, RegistryError)
        return str(error)


def web(dns: Script | None = None, **more: object) -> Rig:
    rig = Rig(DnsOptions("web.test", port=80, **more), dns)  # type: ignore[arg-type]
    rig.dns.hosts["web.test"] = Addresses(("10.0.0.1",), 5.0)
    return rig


def shown(answer: Answer) -> list[str]:
    return [f"{each.host}:{each.port}" for each in answer.candidates]


def test_it_is_a_registry() -> None:
    registry: Registry = web().registry
    assert registry is not None


@pytest.mark.parametrize(("record", "kinds"), [("a", ("A",)), ("aaaa", ("AAAA",)), ("both", ("A", "AAAA"))])
async def test_the_first_question_is_asked_at_once(record: str, kinds: tuple[Kind, ...]) -> None:
    rig = web(record=record)
    assert shown(await rig.next(0)) == ["10.0.0.1:80"]
    assert rig.dns.asked == [("web.test", kinds)]


@pytest.mark.parametrize(("ttl_s", "asked_after_s"), [(0.0, 1.0), (1.0, 1.0), (30.0, 30.0), (3600.0, 60.0)])
async def test_the_ttl_is_kept_within_its_bounds_and_spread(ttl_s: float, asked_after_s: float) -> None:
    rig = web()
    rig.dns.hosts["web.test"] = Addresses(("10.0.0.1",), ttl_s)
    await rig.next(0)
    waits = set()
    for _ in range(20):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(rig.registry.next(), name="next")
            await rig.time.settle()
            (wait_s,) = rig.time.waits
            waits.add(wait_s)
            await rig.time.advance(wait_s + 0.000001)
            assert task.done()
    assert all(asked_after_s <= wait <= asked_after_s * 1.1 for wait in map(milliseconds, waits))
    assert len(waits) > 10


def milliseconds(seconds: float) -> float:
    return round(seconds, 3)


async def test_the_bounds_are_the_configured_ones() -> None:
    rig = web(ttl_min_s=10.0, ttl_max_s=10.0)
    for _ in range(3):
        await rig.next(11.0)
    assert rig.time.now == 1033.0


async def test_a_failure_raises_and_the_next_question_is_asked_at_once() -> None:
    rig = web()
    await rig.next(0)
    rig.dns.hosts["web.test"] = BROKEN
    assert await rig.refused(6.0) == "web.test: SERVFAIL"
    assert await rig.refused(0) == "web.test: SERVFAIL"
    rig.dns.hosts["web.test"] = Addresses(("10.0.0.2",), 5.0)
    assert shown(await rig.next(0)) == ["10.0.0.2:80"]


async def test_a_denied_name_is_believed_only_after_a_while() -> None:
    rig = web()
    await rig.next(0)
    rig.dns.hosts["web.test"] = NONE
    rig.dns.asked.clear()
    started = rig.time.now
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.registry.next(), name="next")
        await rig.time.advance(5.0 + DENIED_FOR_S - 0.1)
        assert not task.done()
        await rig.time.advance(1.0)
        assert task.done()
    assert task.result() == Answer(())
    assert len(rig.dns.asked) == DENIALS
    assert rig.time.now - started >= DENIED_FOR_S
    # From now on it is known, and each question tells it again.
    rig.dns.asked.clear()
    assert await rig.next(5.5) == Answer(())
    assert len(rig.dns.asked) == 1


async def test_a_name_that_comes_back_is_used_at_once() -> None:
    rig = web()
    await rig.next(0)
    rig.dns.hosts["web.test"] = NONE
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.registry.next(), name="next")
        await rig.time.advance(8.0)
        rig.dns.hosts["web.test"] = Addresses(("10.0.0.2",), 5.0)
        await rig.time.advance(5.0)
        assert task.done()
    assert shown(task.result()) == ["10.0.0.2:80"]
    # What was denied before counts no more.
    rig.dns.hosts["web.test"] = NONE
    rig.dns.asked.clear()
    assert await rig.next(5.5 + DENIED_FOR_S) == Answer(())
    assert len(rig.dns.asked) == DENIALS


async def test_a_failure_between_denials_raises() -> None:
    rig = web()
    rig.dns.hosts["web.test"] = NONE
    async with asyncio.TaskGroup() as group:
        task = group.create_task(expect_refusal(rig), name="next")
        await rig.time.advance(2.0)
        rig.dns.hosts["web.test"] = BROKEN
        await rig.time.advance(5.0)
    assert "SERVFAIL" in task.result()


async def expect_refusal(rig: Rig) -> str:
    with pytest.raises(RegistryError) as caught:
        await rig.registry.next()
    return str(caught.value)


async def test_a_second_opinion_is_asked_for_at_once_and_disturbs_nothing() -> None:
    rig = web()
    await rig.next(0)
    rig.dns.hosts["web.test"] = Addresses(("10.0.0.2",), 5.0)
    assert shown(await rig.registry.confirm()) == ["10.0.0.2:80"]
    rig.dns.hosts["web.test"] = BROKEN
    with pytest.raises(RegistryError):
        await rig.registry.confirm()
    rig.dns.hosts["web.test"] = NONE
    with pytest.raises(RegistryError, match="for the first time"):
        await rig.registry.confirm()
    assert await rig.next(5.5 + DENIED_FOR_S) == Answer(())
    assert await rig.registry.confirm() == Answer(())


async def test_what_is_believed_can_be_confirmed_while_the_next_question_is_on_its_way() -> None:
    slow = Slow()
    rig = web(dns=slow)
    slow.hosts["web.test"] = NONE
    assert await rig.next(DENIED_FOR_S) == Answer(())
    late = slow.late = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.registry.next(), name="next")
        await rig.time.advance(6.0)
        assert (await rig.registry.confirm(), task.done()) == (Answer(()), False)
        late.set()
    assert task.result() == Answer(())
    slow.hosts["web.test"] = BROKEN
    assert "SERVFAIL" in await rig.refused(6.0)
    slow.hosts["web.test"] = NONE
    with pytest.raises(RegistryError, match="for the first time"):
        await rig.registry.confirm()


def srv(*services: Service, **more: object) -> Rig:
    rig = Rig(DnsOptions("_web._tcp.test", "srv"))
    rig.dns.srv = Services(services, 5.0, **more)  # type: ignore[arg-type]
    return rig


A, B = Service(0, 1, 80, "a.test"), Service(1, 2, 81, "b.test")


async def test_targets_told_beside_the_services_are_not_asked_for() -> None:
    rig = srv(A, B, ipv4={"a.test": ("10.0.0.1",), "b.test": ("10.0.0.2",)})
    assert shown(await rig.next(0)) == ["10.0.0.1:80", "10.0.0.2:81"]
    assert rig.dns.asked == [("_web._tcp.test", ("SRV",))]


async def test_other_targets_are_asked_for_by_their_absolute_name() -> None:
    rig = srv(A, B, ipv4={"a.test": ("10.0.0.1",)})
    rig.dns.hosts["b.test."] = Addresses(("10.0.0.2", "10.0.0.3", "2001:db8::2"), 2.0)
    # Both families would be one server twice.
    assert shown(await rig.next(0)) == ["10.0.0.1:80", "10.0.0.2:81", "10.0.0.3:81"]
    assert rig.dns.asked[1:] == [("b.test.", ("A", "AAAA"))]
    await rig.next(2.2)  # the least TTL of all that was asked


async def test_a_target_of_ipv6_alone_stands_for_that() -> None:
    rig = srv(A, B, ipv6={"a.test": ("2001:db8::1",)})
    rig.dns.hosts["a.test."] = NONE
    rig.dns.hosts["b.test."] = Addresses(("2001:db8::2",), 5.0)
    assert shown(await rig.next(0)) == ["2001:db8::1:80", "2001:db8::2:81"]
    assert rig.dns.asked[1:] == [("a.test.", ("A",)), ("b.test.", ("A", "AAAA"))]


@pytest.mark.parametrize(
    ("answer", "words"), [(TARGET_BROKEN, "b.test: SERVFAIL"), (NONE, "its target b.test has no address")]
)
async def test_a_target_without_an_address_spoils_the_whole_answer(
    answer: Addresses | ResolveError, words: str
) -> None:
    rig = srv(A, B, ipv4={"a.test": ("10.0.0.1",)})
    rig.dns.hosts["b.test."] = answer
    assert words in await rig.refused()


async def test_many_targets_are_all_asked_for() -> None:
    rig = srv(*(Service(0, 1, 80, f"n{number:03}.test") for number in range(100)))
    for number in range(100):
        rig.dns.hosts[f"n{number:03}.test."] = Addresses((f"10.0.0.{number + 1}",), 5.0)
    assert shown(await rig.registry.next()) == [f"10.0.0.{number + 1}:80" for number in range(100)]


async def test_too_many_targets_are_an_error() -> None:
    rig = srv(*(Service(0, 1, 80, f"n{number}.test") for number in range(MAX_TARGETS + 1)))
    assert "1025 targets" in await rig.refused()


async def test_a_root_target_says_at_once_that_there_is_no_service() -> None:
    rig = srv(Service(0, 0, 0, "."))
    assert await rig.next(0) == Answer(())


async def test_it_can_be_cancelled_while_it_waits() -> None:
    rig = web()
    await rig.next(0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.registry.next(), name="next")
        await rig.time.settle()
        task.cancel()
    await rig.registry.close()
    assert shown(await rig.next(5.5)) == ["10.0.0.1:80"]
