"""The DNS registry beside a real name server: records that come and go, and a server in every kind of trouble."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.dns.options import DnsOptions, Record
from lbproxy.discovery.dns.registry import DnsRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.nameservers import NameServers
from lbproxy.wire.records import RecordResolver
from tests.patience import WITHIN_S
from tests.servers.consul import Consul
from tests.servers.knot import BROKEN_ZONE, ZONE, Knot

TTL_S = 0.25
MANY = 600


def following(
    knot: Knot,
    name: str,
    record: Record = "a",
    *,
    timeout_s: float = 10.0,
    zone: str = ZONE,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> DnsRegistry:
    port = None if record == "srv" else 80
    options = DnsOptions(f"{name}.{zone}", record, port, (knot.address,), TTL_S, TTL_S, timeout_s)
    resolver = RecordResolver(NameServers(options.servers), timeout_s)
    return DnsRegistry(options, resolver, time.monotonic, sleep, random.Random(1))


def shown(answer: Answer) -> list[tuple[str, int, int, int]]:
    return [(each.host, each.port, each.priority, each.weight) for each in answer.candidates]


def hosts(answer: Answer) -> list[str]:
    return [each.host for each in answer.candidates]


async def until(registry: DnsRegistry, wanted: Callable[[Answer], bool]) -> Answer:
    """The first answer that is as wanted; errors on the way to it are not answers."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                answer = await registry.next()
            except RegistryError:
                continue
            if wanted(answer):
                return answer


async def change(knot: Knot, name: str, kind: str, *values: str, ttl: int = 0) -> None:
    await asyncio.to_thread(knot.set, name, kind, *values, ttl=ttl)


async def test_records_that_come_and_go_are_followed_within_the_floor(knot: Knot) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds)

    await change(knot, "web", "A", "10.0.0.1")
    registry = following(knot, "web", sleep=sleep)
    assert hosts(await registry.next()) == ["10.0.0.1"]
    for values in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2"], ["10.0.0.3", "10.0.0.4"]):
        await change(knot, "web", "A", *values)
        slept.clear()
        await until(registry, lambda answer, values=values: hosts(answer) == values)  # type: ignore[misc]
        assert sum(slept) < 2 * TTL_S


async def test_both_families_are_followed(knot: Knot) -> None:
    await change(knot, "web", "A", "10.0.0.1")
    registry = following(knot, "web", "both")
    assert hosts(await registry.next()) == ["10.0.0.1"]
    await change(knot, "web", "AAAA", "2001:db8::1")
    assert hosts(await registry.next()) == ["10.0.0.1", "2001:db8::1"]


async def test_services_with_priorities_weights_and_targets(knot: Knot) -> None:
    await change(knot, "one", "A", "10.0.0.1")
    await change(knot, "two", "A", "10.0.0.2")
    registry = following(knot, "_web._tcp", "srv")
    await change(
        knot, "_web._tcp", "SRV", f"10 3 81 one.{ZONE}", f"10 0 82 two.{ZONE}", f"20 0 83 one.{ZONE}"
    )
    assert shown(await registry.next()) == [
        ("10.0.0.1", 81, 0, 300),
        ("10.0.0.2", 82, 0, 1),
        ("10.0.0.1", 83, 1, 1),
    ]
    # A target of another zone, of which this server knows nothing: without it, the answer would be a part.
    await change(knot, "_web._tcp", "SRV", f"0 1 81 one.{ZONE}", "0 1 82 far.elsewhere.test.")
    with pytest.raises(RegistryError, match=r"far\.elsewhere\.test"):
        await registry.next()
    await change(knot, "_web._tcp", "SRV", "0 0 0 .")
    assert await registry.next() == Answer(())


async def test_600_addresses_and_600_services_arrive_whole(knot: Knot) -> None:
    values = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(MANY)]
    await change(knot, "many", "A", *values)
    assert len((await following(knot, "many").next()).candidates) == MANY
    await change(knot, "_many._tcp", "SRV", *(f"0 1 {port} many.{ZONE}" for port in range(1, 4)))
    assert len((await following(knot, "_many._tcp", "srv").next()).candidates) == 3 * MANY


async def test_a_name_that_is_gone_is_believed_after_a_while_and_seen_when_it_is_back(
    knot: Knot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.discovery.dns.registry.DENIAL_PAUSE_S", 0.05)
    await change(knot, "web", "A", "10.0.0.1")
    registry = following(knot, "web")
    await registry.next()
    await change(knot, "web", "A")
    assert await registry.next() == Answer(())
    assert await registry.confirm() == Answer(())
    await change(knot, "web", "A", "10.0.0.2")
    assert hosts(await registry.next()) == ["10.0.0.2"]


@pytest.mark.parametrize(("zone", "words"), [(BROKEN_ZONE, "SERVFAIL"), ("elsewhere.test.", "REFUSED")])
async def test_a_server_that_cannot_know_gives_no_answer(knot: Knot, zone: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        await following(knot, "web", zone=zone).next()


async def test_a_stopped_server_is_given_up_in_time_and_followed_when_it_goes_on(knot: Knot) -> None:
    await change(knot, "web", "A", "10.0.0.1")
    registry = following(knot, "web", timeout_s=0.4)
    await registry.next()
    knot.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(RegistryError, match="do not answer"):
                await registry.next()
    finally:
        knot.signal(signal.SIGCONT)
    assert hosts(await until(registry, lambda answer: True)) == ["10.0.0.1"]


async def test_a_server_that_was_killed_is_followed_when_it_is_back(knot: Knot) -> None:
    await change(knot, "web", "A", "10.0.0.1")
    registry = following(knot, "web", timeout_s=0.4)
    await registry.next()
    await asyncio.to_thread(knot.kill)
    with pytest.raises(RegistryError):
        await registry.next()
    await asyncio.to_thread(knot.start)
    await change(knot, "web", "A", "10.0.0.2")
    assert hosts(await until(registry, lambda answer: True)) == ["10.0.0.2"]


@pytest.mark.parametrize("record", ["srv", "a"])
async def test_consuls_own_dns_is_followed(consul: Consul, record: Record) -> None:
    consul.register(81)
    consul.register(82)
    options = DnsOptions(
        "_web._tcp.service.consul." if record == "srv" else "web.service.consul.",
        record,
        None if record == "srv" else 80,
        (("127.0.0.1", consul.ports["dns"]),),
        TTL_S,
    )
    resolver = RecordResolver(NameServers(options.servers), options.timeout_s)
    registry = DnsRegistry(options, resolver, time.monotonic, asyncio.sleep, random.Random(1))
    if record == "a":
        assert shown(await registry.next()) == [("127.0.0.1", 80, 0, 1)]
        return
    answer = await until(registry, lambda answer: len(answer.candidates) == 2)
    assert [(each.host, each.port, each.weight) for each in answer.candidates] == [
        ("127.0.0.1", 81, 1),
        ("127.0.0.1", 82, 1),
    ]
    await asyncio.to_thread(consul.deregister, "web-81")
    await until(registry, lambda answer: [each.port for each in answer.candidates] == [82])
