"""The static source on virtual time: when it asks, what it reports, and that no failure ever removes anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Source
from lbproxy.discovery.names import RETRY, NameTable
from lbproxy.discovery.options import StaticEndpoint
from lbproxy.discovery.static import StaticSource
from lbproxy.domain.address import parse_target
from lbproxy.domain.errors import ResolveError
from lbproxy.domain.membership import Member, Membership
from lbproxy.wire.resolver import IpFamily, Resolution
from tests.discovery.virtual import ScriptedResolver, VirtualTime

GONE = ResolveError("a.example", "no such name", retryable=False)
BROKEN = ResolveError("a.example", "SERVFAIL", retryable=True)


class Rig:
    """A source with everything around it scripted and recorded."""

    def __init__(
        self, *targets: str | StaticEndpoint, known: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        self.time = VirtualTime()
        self.dns = ScriptedResolver(self.time.clock)
        self.reports: list[Membership] = []
        self.failures: list[Exception] = []
        self.source = StaticSource(
            "web",
            tuple(StaticEndpoint(parse_target(t)) if isinstance(t, str) else t for t in targets),
            self.dns.resolve,
            lambda membership, _: self.reports.append(membership),
            self.failures.append,
            self.time.clock,
            self.time.sleep,
            Random(1),
            known or {},
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.source.run(), name="source")
            await self.time.settle()
            yield
            task.cancel()

    @property
    def reported(self) -> list[list[str]]:
        return [shown(report) for report in self.reports]


def shown(membership: Membership) -> list[str]:
    return [str(member.address) for member in membership.members]


def test_it_is_a_source() -> None:
    source: Source = Rig("10.0.0.1:80").source
    assert source.name == "static"


async def test_addresses_are_known_at_once_and_need_no_following() -> None:
    rig = Rig("10.0.0.2:80", "unix:/run/web.sock", "10.0.0.1:80", "[::ffff:10.0.0.2]:80")
    assert shown(rig.source.initial()) == ["10.0.0.2:80", "unix:/run/web.sock", "10.0.0.1:80"]
    assert rig.source.refreshed_at == 1000.0
    await rig.source.run()
    assert (rig.reports, rig.dns.asked) == ([], [])


async def test_members_stand_in_the_configured_order_with_its_attributes() -> None:
    named = StaticEndpoint(parse_target("a.example:81"), 3, "eu-1a", 2, 50, {"version": "v2"})
    rig = Rig("10.0.0.1:80", named, "10.0.0.9:80")
    assert shown(rig.source.initial()) == ["10.0.0.1:80", "10.0.0.9:80"]
    rig.dns.answers["a.example"] = Resolution(("10.0.0.5", "2001:db8::1"), 60)
    async with rig.running():
        assert rig.reported == [["10.0.0.1:80", "10.0.0.5:81", "[2001:db8::1]:81", "10.0.0.9:80"]]
    for member in rig.reports[0].members[1:3]:
        assert member == Member(member.address, 3, 2, "eu-1a", 50, {"version": "v2"})


async def test_a_name_is_asked_again_when_its_ttl_has_ended_and_not_before() -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 60)
    async with rig.running():
        await rig.time.advance(59.9)
        assert len(rig.dns.asked) == 1
        await rig.time.advance(6.1)
        assert len(rig.dns.asked) == 2


async def test_an_unchanged_answer_is_not_reported() -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 1)
    async with rig.running():
        await rig.time.advance(100)
        assert len(rig.dns.asked) > 50
        assert rig.reported == [["10.0.0.1:80"]]
        rig.dns.answers["a.example"] = Resolution(("10.0.0.2",), 1)
        await rig.time.advance(2)
        assert rig.reported == [["10.0.0.1:80"], ["10.0.0.2:80"]]


@pytest.mark.parametrize("error", [GONE, BROKEN])
async def test_the_last_good_addresses_are_kept_for_ever(error: ResolveError) -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 5)
    async with rig.running():
        rig.dns.answers["a.example"] = error
        await rig.time.advance(86400)
        assert rig.reported == [["10.0.0.1:80"]]
        assert shown(rig.source.initial()) == ["10.0.0.1:80"]
        assert set(rig.failures) == {error}
        assert rig.source.refreshed_at == 1000.0
        rig.dns.answers["a.example"] = Resolution(("10.0.0.2",), 5)
        await rig.time.advance(RETRY.cap_s)
        assert rig.reported[-1] == ["10.0.0.2:80"]
        assert rig.source.refreshed_at is not None
        assert rig.source.refreshed_at > 1000.0


async def test_failures_back_off_and_an_answer_ends_that() -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = BROKEN
    async with rig.running():
        for failures in range(12):
            (wait_s,) = rig.time.waits
            assert RETRY.floor_s <= wait_s <= min(RETRY.cap_s, 2.0**failures)
            await rig.time.advance(wait_s)
        rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 100)
        await rig.time.advance(RETRY.cap_s)
        rig.dns.answers["a.example"] = BROKEN
        await rig.time.advance(rig.time.waits[0])
        assert rig.time.waits[0] <= RETRY.base_s
    # Many names that fail together: full jitter, not one burst.
    assert len({when for when, _ in rig.dns.asked}) == len(rig.dns.asked)


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("inet6", ["10.0.0.9:80", "[2001:db8::1]:80"]),
        ("inet", ["10.0.0.9:80"]),
    ],
)
async def test_a_family_that_did_not_answer_keeps_its_addresses(missing: IpFamily, left: list[str]) -> None:
    rig = Rig("a.example:80")
    before = ("10.0.0.1", "2001:db8::1") if missing == "inet6" else ("10.0.0.9", "2001:db8::1")
    rig.dns.answers["a.example"] = Resolution(before, 5)
    async with rig.running():
        answer = ("10.0.0.9",) if missing == "inet6" else ("2001:db8::2",)
        rig.dns.answers["a.example"] = Resolution(answer, 5, missing=(missing,))
        await rig.time.advance(6)
        assert rig.reported[-1] == (left if missing == "inet6" else [*left, "[2001:db8::2]:80"])


async def test_names_do_not_wait_for_each_other() -> None:
    rig = Rig("slow.example:80", "quick.example:80")
    slow = asyncio.get_running_loop().create_future()
    rig.dns.answers["slow.example"] = slow
    rig.dns.answers["quick.example"] = Resolution(("10.0.0.2",), 5)
    async with rig.running():
        await rig.time.advance(60)
        assert rig.reported == [["10.0.0.2:80"]]
        assert rig.source.refreshed_at is None  # not everything is known yet
        slow.set_result(Resolution(("10.0.0.1",), 5))
        await rig.time.settle()
        assert rig.reported[-1] == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_one_name_with_two_ports_is_asked_once() -> None:
    rig = Rig("a.example:80", "a.example:81")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 60)
    async with rig.running():
        assert rig.reported == [["10.0.0.1:80", "10.0.0.1:81"]]
        assert len(rig.dns.asked) == 1


async def test_two_names_of_one_address_are_one_endpoint() -> None:
    rig = Rig(StaticEndpoint(parse_target("a.example:80"), weight=3), "b.example:80")
    rig.dns.answers["a.example"] = rig.dns.answers["b.example"] = Resolution(("10.0.0.1",), 60)
    async with rig.running():
        assert [(member.weight, str(member.address)) for member in rig.reports[-1].members] == [
            (3, "10.0.0.1:80")
        ]


async def test_a_successor_starts_with_what_was_known() -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 60)
    async with rig.running():
        pass
    successor = Rig("b.example:80", "a.example:80", "10.0.0.7:80", known=dict(rig.source.known))
    assert shown(successor.source.initial()) == ["10.0.0.1:80", "10.0.0.7:80"]
    successor.dns.answers = {"a.example": BROKEN, "b.example": BROKEN}
    async with successor.running():
        await successor.time.advance(3600)
    assert successor.reports == []


async def test_an_unforeseen_error_ends_run_and_keeps_what_is_known() -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 5)

    async def lose_the_script() -> None:
        async with rig.running():
            del rig.dns.answers["a.example"]
            await rig.time.advance(6)

    with pytest.raises(ExceptionGroup) as caught:
        await lose_the_script()
    assert caught.group_contains(KeyError)
    assert shown(rig.source.initial()) == ["10.0.0.1:80"]


async def test_addresses_beyond_the_limit_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("a.example:80")
    rig.dns.answers["a.example"] = Resolution(("10.0.0.1",), 1, dropped=7)
    async with rig.running():
        await rig.time.advance(10)
    assert [record.getMessage() for record in caplog.records] == [
        "a.example: 7 addresses beyond the limit are not used"
    ]


ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"]), unique=True)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a.example", "b.example"]),
        st.none() | st.tuples(ADDRESSES.filter(bool), st.sampled_from([(), ("inet",), ("inet6",)])),
    )
)


@given(STEPS)
def test_only_answers_remove_and_only_in_the_families_that_answered(
    steps: list[tuple[str, tuple[list[str], tuple[IpFamily, ...]] | None]],
) -> None:
    table = NameTable(
        (StaticEndpoint(parse_target("a.example:80")), StaticEndpoint(parse_target("b.example:80"))),
        Random(1),
        {},
    )
    model: dict[str, set[str]] = {"a.example": set(), "b.example": set()}
    for now, (name, answer) in enumerate(steps):
        before = table.membership
        if answer is None:
            assert table.failed(name) > 0
            assert table.membership is before
            continue
        addresses, missing = answer
        answered = [ip for ip in addresses if ("inet6" if ":" in ip else "inet") not in missing]
        changed, wait_s = table.answered(name, Resolution(tuple(answered), 9.0, missing), float(now))
        kept = {ip for ip in model[name] if ("inet6" if ":" in ip else "inet") in missing}
        model[name] = kept | set(answered)
        assert changed == (table.membership != before)
        assert 9.0 <= wait_s <= 9.9
        assert {member.address.host for member in table.membership.members} == set().union(*model.values())
