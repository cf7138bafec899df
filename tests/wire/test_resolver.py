"""Names to addresses, against a name server that answers well, wrongly, late or not at all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lbproxy.domain.errors import ResolveError
from lbproxy.wire import resolver as module
from lbproxy.wire.resolver import Resolution, Resolver
from tests.wire.name_server import (
    NO_DATA,
    NO_SUCH_NAME,
    SERVER_FAILURE,
    NameServer,
    Script,
    garbage,
    name_server,
    records,
    silence,
    stranger,
)

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as running:
        yield running


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("")
    return path


def asking(
    server: NameServer, hosts: Path, *, search: tuple[str, ...] = (), lifetime_s: float = 40.0
) -> Resolver:
    return Resolver(server.address, search=search, hosts_path=hosts, lifetime_s=lifetime_s)


async def test_ipv4_comes_first_and_each_family_is_sorted_by_number(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records("10.0.0.10", "10.0.0.9", ttl=30)
    server.answers["web.example", "AAAA"] = records("2001:DB8::a", "2001:db8::9", ttl=20)
    found = await asking(server, hosts).resolve("web.example")
    assert found == Resolution(("10.0.0.9", "10.0.0.10", "2001:db8::9", "2001:db8::a"), 20.0)


@pytest.mark.parametrize(
    ("ttl", "expected"), [(0, 1.0), (1, 1.0), (77, 77.0), (3600, 3600.0), (2_000_000, 3600.0)]
)
async def test_ttl_is_kept_between_a_second_and_an_hour(
    server: NameServer, hosts: Path, ttl: int, expected: float
) -> None:
    server.answers["web.example", "A"] = records("10.0.0.1", ttl=ttl)
    server.answers["web.example", "AAAA"] = NO_DATA
    assert (await asking(server, hosts).resolve("web.example")).ttl_s == expected


async def test_ttl_of_an_alias_counts_too(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records("10.0.0.1", ttl=300, alias=("real.example.", 7))
    found = await asking(server, hosts).resolve("web.example")
    assert (found.addresses, found.ttl_s) == (("10.0.0.1",), 7.0)


@pytest.mark.parametrize("other", [NO_DATA, NO_SUCH_NAME])
async def test_a_family_without_addresses_is_an_answer(
    server: NameServer, hosts: Path, other: Script
) -> None:
    server.answers["web.example", "A"] = other
    server.answers["web.example", "AAAA"] = records("2001:db8::1")
    assert await asking(server, hosts).resolve("web.example") == Resolution(("2001:db8::1",), 60.0)


async def test_a_family_that_fails_is_named_and_asked_again_soon(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records("10.0.0.1", ttl=900)
    server.answers["web.example", "AAAA"] = SERVER_FAILURE
    found = await asking(server, hosts).resolve("web.example")
    assert found == Resolution(("10.0.0.1",), module.INCOMPLETE_TTL_S, missing=("inet6",))


async def test_a_silent_family_delays_the_other_one_only_shortly(
    server: NameServer, hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OTHER_FAMILY_S", 0.05)
    server.answers["web.example", "A"] = silence
    server.answers["web.example", "AAAA"] = records("2001:db8::1", ttl=5)
    found = await asking(server, hosts).resolve("web.example")
    assert found == Resolution(("2001:db8::1",), 5.0, missing=("inet",))


@pytest.mark.parametrize("script", [NO_DATA, NO_SUCH_NAME])
async def test_a_name_that_is_not_there_is_final(server: NameServer, hosts: Path, script: Script) -> None:
    server.both("web.example", script)
    with pytest.raises(ResolveError, match=r"web\.example: no such name") as caught:
        await asking(server, hosts).resolve("web.example")
    assert not caught.value.retryable


async def test_a_server_failure_is_worth_another_try(server: NameServer, hosts: Path) -> None:
    server.both("web.example", SERVER_FAILURE)
    with pytest.raises(ResolveError, match="SERVFAIL") as caught:
        await asking(server, hosts).resolve("web.example")
    assert caught.value.retryable


@pytest.mark.parametrize("other", [NO_DATA, NO_SUCH_NAME])
async def test_half_a_denial_is_no_denial(server: NameServer, hosts: Path, other: Script) -> None:
    server.answers["web.example", "A"] = SERVER_FAILURE
    server.answers["web.example", "AAAA"] = other
    with pytest.raises(ResolveError) as caught:
        await asking(server, hosts).resolve("web.example")
    assert caught.value.retryable


@pytest.mark.parametrize("script", [silence, garbage, stranger])
async def test_what_is_no_answer_ends_with_the_time_allowed(
    server: NameServer, hosts: Path, script: Script
) -> None:
    server.both("web.example", script)
    started = time.monotonic()
    with pytest.raises(ResolveError, match="do not answer") as caught:
        await asking(server, hosts, lifetime_s=0.1).resolve("web.example")
    assert caught.value.retryable
    assert 0.1 <= time.monotonic() - started < 20.0


async def test_a_truncated_answer_is_read_over_tcp(server: NameServer, hosts: Path) -> None:
    addresses = tuple(f"10.1.0.{number}" for number in range(200))
    server.answers["web.example", "A"] = records(*addresses)
    found = await asking(server, hosts).resolve("web.example")
    assert found.addresses == addresses
    assert ("tcp", ("web.example", "A")) in server.asked


async def test_addresses_beyond_the_limit_are_dropped_and_counted(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records(*(f"10.1.{n // 250}.{n % 250}" for n in range(600)))
    found = await asking(server, hosts).resolve("web.example")
    assert len(found.addresses) == module.MAX_ADDRESSES
    assert found.dropped == 600 - module.MAX_ADDRESSES


async def test_search_domains_are_tried_in_order(server: NameServer, hosts: Path) -> None:
    server.answers["db.two.example", "A"] = records("10.0.0.2")
    server.answers["db.three.example", "A"] = records("10.0.0.3")
    resolver = asking(server, hosts, search=("one.example", "two.example", "three.example"))
    assert (await resolver.resolve("db")).addresses == ("10.0.0.2",)


async def test_both_families_come_from_one_search_domain(server: NameServer, hosts: Path) -> None:
    server.answers["db.one.example", "A"] = records("10.0.0.1")  # and AAAA is denied, wrongly
    server.answers["db.two.example", "AAAA"] = records("2001:db8::2")
    resolver = asking(server, hosts, search=("one.example", "two.example"))
    assert (await resolver.resolve("db")).addresses == ("10.0.0.1",)


async def test_a_failing_search_domain_does_not_lead_to_another_host(server: NameServer, hosts: Path) -> None:
    server.both("db.one.example", SERVER_FAILURE)
    server.both("db.two.example", records("10.6.6.6"))
    with pytest.raises(ResolveError) as caught:
        await asking(server, hosts, search=("one.example", "two.example")).resolve("db")
    assert caught.value.retryable


async def test_a_name_with_dots_is_tried_as_it_stands_first(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records("10.0.0.1")
    server.answers["web.example.one.example", "A"] = records("10.6.6.6")
    resolver = asking(server, hosts, search=("one.example",))
    assert (await resolver.resolve("web.example")).addresses == ("10.0.0.1",)


async def test_the_hosts_file_wins_and_is_read_again_when_it_changes(server: NameServer, hosts: Path) -> None:
    server.answers["web.example", "A"] = records("10.0.0.1")
    resolver = asking(server, hosts)
    hosts.write_text("10.9.0.2 other WEB.example # a remark\n::ffff:10.9.0.1 web.example\n")
    found = await resolver.resolve("web.example")
    assert found == Resolution(("10.9.0.1", "10.9.0.2"), module.HOSTS_TTL_S)
    assert server.asked == []
    replacement = hosts.with_name("new")
    replacement.write_text("10.9.0.3 web.example\n")
    replacement.rename(hosts)
    assert (await resolver.resolve("web.example")).addresses == ("10.9.0.3",)
    hosts.unlink()
    assert (await resolver.resolve("web.example")).addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", "::1")),
        ("127.0.0.1 localhost", ("127.0.0.1",)),
        ("10.0.0.1 localhost", ("127.0.0.1", "::1")),
        ("10.0.0.1 localhost\n::1 localhost", ("::1",)),
    ],
)
@pytest.mark.parametrize("suffix", ["", "."])
async def test_localhost_is_always_this_machine(
    server: NameServer, hosts: Path, text: str, expected: tuple[str, ...], suffix: str
) -> None:
    hosts.write_text(text)
    assert (await asking(server, hosts).resolve(f"localhost{suffix}")).addresses == expected
    assert server.asked == []


async def test_an_address_needs_no_one(server: NameServer, hosts: Path) -> None:
    assert (await asking(server, hosts).resolve("::ffff:10.0.0.1")).addresses == ("10.0.0.1",)
    assert server.asked == []


async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path, hosts: Path) -> None:
    conf = tmp_path / "resolv.conf"
    resolver = Resolver(hosts_path=hosts, resolv_conf_path=conf, lifetime_s=0.05)
    with pytest.raises(ResolveError, match=r"resolv\.conf") as caught:
        await resolver.resolve("web.example")
    assert caught.value.retryable
    conf.write_text("nameserver not-an-address\n")
    with pytest.raises(ResolveError, match=r"resolv\.conf"):
        await resolver.resolve("web.example")
    conf.write_text("search example\nnameserver 127.0.0.1\n")
    os.utime(conf, ns=(1, 1))
    with pytest.raises(ResolveError, match=r"answer|refused"):  # nobody serves DNS on the usual port here
        await resolver.resolve("web")


async def test_names_in_flight_are_bounded(server: NameServer, hosts: Path) -> None:
    names = [f"n{number}.example" for number in range(3 * module.MAX_QUESTIONS)]
    for name in names:
        server.both(name, silence)
    resolver = asking(server, hosts, lifetime_s=0.05)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(resolver, name), name=name) for name in names]
        before = set(os.listdir("/proc/self/fd"))
        peak = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            peak = max(peak, len(set(os.listdir("/proc/self/fd")) - before))
    assert 0 < peak <= 2 * module.MAX_QUESTIONS + 4


async def caught(resolver: Resolver, name: str) -> None:
    with pytest.raises(ResolveError):
        await resolver.resolve(name)


async def test_cancelling_leaves_nothing_behind(server: NameServer, hosts: Path) -> None:
    server.both("web.example", silence)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking(server, hosts).resolve("web.example"), name="resolve")
        for _ in range(2):
            await server.questions.get()
        task.cancel()
