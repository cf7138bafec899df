"""Records of a name, against a name server that answers well, wrongly, by halves or not at all: the three outcomes told apart."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbproxy.domain.errors import ResolveError
from lbproxy.wire import records as module
from lbproxy.wire.nameservers import NameServers
from lbproxy.wire.records import Addresses, RecordResolver, Service, Services
from tests.wire.name_server import (
    NO_DATA,
    NO_SUCH_NAME,
    SERVER_FAILURE,
    NameServer,
    Script,
    garbage,
    name_server,
    rcode,
    records,
    silence,
    stranger,
)

pytestmark = pytest.mark.both_loops
NAME = "web.test"


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as running:
        yield running


def asking(*servers: NameServer, timeout_s: float = 5.0, search: tuple[str, ...] = ()) -> RecordResolver:
    given = tuple(each.address for each in servers)
    return RecordResolver(NameServers(given, search=search, timeout_s=timeout_s), timeout_s)


def response(*sections: tuple[str, ...], flags: int = 0) -> Script:
    """An answer in presentation format: the texts of its answer, authority and additional sections."""

    def answer(query: dns.message.Message) -> bytes:
        made = dns.message.make_response(query)
        made.flags |= flags
        for section, texts in zip((made.answer, made.authority, made.additional), sections, strict=False):
            for text in texts:
                owner, ttl, kind, value = text.split(maxsplit=3)
                rrset = next((r for r in section if r.name.to_text() == owner), None)
                new = dns.rrset.from_text(owner, int(ttl), "IN", kind, value)
                if rrset is not None and rrset.rdtype == new.rdtype:
                    rrset.update(new)  # type: ignore[no-untyped-call]
                else:
                    section.append(new)
        return made.to_wire(max_size=65535)

    return answer


SOA = ("test. 30 SOA ns.test. host.test. 1 3600 600 86400 7",)
REFERRAL = ("test. 30 NS ns.elsewhere.",)


async def test_both_families_are_one_answer_in_an_order_of_its_own(server: NameServer) -> None:
    server.answers[NAME, "A"] = records("10.0.0.10", "10.0.0.9", ttl=30)
    server.answers[NAME, "AAAA"] = records("2001:db8::a", "2001:db8::9", ttl=20)
    found = await asking(server).addresses(NAME, ("A", "AAAA"))
    assert found == Addresses(("10.0.0.9", "10.0.0.10", "2001:db8::9", "2001:db8::a"), 20.0)
    assert await asking(server).addresses(NAME, ("A",)) == Addresses(("10.0.0.9", "10.0.0.10"), 30.0)


@pytest.mark.parametrize("other", [NO_DATA, NO_SUCH_NAME, response((), SOA)])
async def test_a_family_without_addresses_is_an_answer(server: NameServer, other: Script) -> None:
    server.answers[NAME, "A"] = records("10.0.0.1", ttl=30)
    server.answers[NAME, "AAAA"] = other
    assert await asking(server).addresses(NAME, ("A", "AAAA")) == Addresses(("10.0.0.1",), 30.0)


@pytest.mark.parametrize("failure", [SERVER_FAILURE, rcode(dns.rcode.REFUSED), garbage, stranger, silence])
async def test_a_family_that_fails_spoils_the_answer(server: NameServer, failure: Script) -> None:
    server.answers[NAME, "A"] = records("10.0.0.1")
    server.answers[NAME, "AAAA"] = failure
    with pytest.raises(ResolveError) as caught:
        await asking(server, timeout_s=0.3).addresses(NAME, ("A", "AAAA"))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("script", "ttl_s"),
    [
        (NO_SUCH_NAME, 300.0),
        (NO_DATA, 300.0),
        (response((), SOA), 7.0),
        (response((f"{NAME}. 5 CNAME other.test.",), SOA), 5.0),
        (response((f"{NAME}. 5 CNAME other.test.",), flags=dns.flags.RA), 5.0),
        (response((), REFERRAL, flags=dns.flags.AA), 300.0),
    ],
)
@pytest.mark.parametrize("kind", ["A", "SRV"])
async def test_an_empty_answer_of_one_who_knows_is_an_answer(
    server: NameServer, script: Script, ttl_s: float, kind: str
) -> None:
    server.answers[NAME, kind] = script
    resolver = asking(server)
    if kind == "SRV":
        assert await resolver.services(NAME) == Services((), ttl_s)
    else:
        assert await resolver.addresses(NAME, ("A",)) == Addresses((), ttl_s)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (response((), REFERRAL), "referral"),
        (response((f"{NAME}. 5 CNAME other.test.",)), "alias whose target"),
        (response(tuple(f"{a} 5 CNAME {b}" for a, b in (("web.test.", "b."), ("b.", "web.test.")))), "chain"),
        (SERVER_FAILURE, "SERVFAIL"),
        (rcode(dns.rcode.REFUSED), "REFUSED"),
        (garbage, "do not answer"),
        (stranger, "do not answer"),
        (silence, "do not answer"),
    ],
)
@pytest.mark.parametrize("kind", ["A", "SRV"])
async def test_what_is_no_answer_raises(server: NameServer, script: Script, words: str, kind: str) -> None:
    server.answers[NAME, kind] = script
    resolver = asking(server, timeout_s=0.3)
    with pytest.raises(ResolveError, match=words):
        await (resolver.services(NAME) if kind == "SRV" else resolver.addresses(NAME, ("A",)))


@pytest.mark.parametrize("aliases", [8, 9])
async def test_a_chain_of_aliases_has_a_bound(server: NameServer, aliases: int) -> None:
    names = [f"{NAME}.", *(f"a{number}.test." for number in range(aliases))]
    chain = tuple(f"{one} 5 CNAME {two}" for one, two in itertools.pairwise(names))
    server.answers[NAME, "A"] = response((*chain, f"{names[-1]} 50 A 10.0.0.1"))
    if aliases <= module.MAX_ALIASES:
        assert await asking(server).addresses(NAME, ("A",)) == Addresses(("10.0.0.1",), 5.0)
        return
    with pytest.raises(ResolveError, match="more than 8 aliases"):
        await asking(server).addresses(NAME, ("A",))


async def test_services_come_with_what_is_told_of_their_targets(server: NameServer) -> None:
    server.answers[NAME, "SRV"] = response(
        (
            f"{NAME}. 60 SRV 10 5 81 B.test.",
            f"{NAME}. 60 SRV 0 0 80 a.test.",
            f"{NAME}. 60 SRV 10 5 82 c.test.",
        ),
        (),
        (
            "a.test. 20 A 10.0.0.2",
            "a.test. 20 A 10.0.0.1",
            "b.test. 40 AAAA 2001:db8::1",
            "unasked.test. 1 A 10.6.6.6",
        ),
    )
    assert await asking(server).services(NAME) == Services(
        (Service(0, 0, 80, "a.test"), Service(10, 5, 81, "b.test"), Service(10, 5, 82, "c.test")),
        20.0,
        {"a.test": ("10.0.0.1", "10.0.0.2")},
        {"b.test": ("2001:db8::1",)},
    )


async def test_the_root_as_a_target_keeps_its_name(server: NameServer) -> None:
    server.answers[NAME, "SRV"] = response((f"{NAME}. 60 SRV 0 0 0 .",))
    assert (await asking(server).services(NAME)).services == (Service(0, 0, 0, "."),)


async def test_a_truncated_answer_is_asked_for_again_over_tcp(server: NameServer) -> None:
    many = tuple(f"{NAME}. 60 SRV 0 1 {port} t{port}.test." for port in range(1, 601))
    server.answers[NAME, "SRV"] = response(many)
    found = await asking(server).services(NAME)
    assert len(found.services) == 600
    assert [transport for transport, _ in server.asked] == ["udp", "tcp"]


async def test_an_answer_that_is_cut_off_over_tcp_too_is_no_answer(server: NameServer) -> None:
    server.answers[NAME, "A"] = response((f"{NAME}. 5 A 10.0.0.1",), flags=dns.flags.TC)
    with pytest.raises(ResolveError, match="cut off"):
        await asking(server).addresses(NAME, ("A",))
    assert [transport for transport, _ in server.asked] == ["udp", "tcp"]


async def test_a_server_that_answers_by_halves_over_tcp_is_no_answer(server: NameServer) -> None:
    whole = records(*(f"10.1.{number // 250}.{number % 250}" for number in range(600)))

    def half(query: dns.message.Message) -> bytes:
        data = whole(query) or b""
        return data[: len(data) // 2]

    server.answers[NAME, "A"] = half
    with pytest.raises(ResolveError):
        await asking(server, timeout_s=0.5).addresses(NAME, ("A",))


@pytest.mark.parametrize("failure", [SERVER_FAILURE, rcode(dns.rcode.REFUSED), silence, garbage])
async def test_the_next_server_is_asked_when_one_fails(server: NameServer, failure: Script) -> None:
    async with name_server() as other:
        server.answers[NAME, "A"] = failure
        other.answers[NAME, "A"] = records("10.0.0.1")
        assert (await asking(server, other, timeout_s=1.0).addresses(NAME, ("A",))).addresses == ("10.0.0.1",)


async def test_a_search_domain_that_fails_ends_the_question(server: NameServer) -> None:
    server.answers["web.one.test", "A"] = NO_SUCH_NAME
    server.answers["web.two.test", "A"] = records("10.0.0.2")
    resolver = asking(server, search=("one.test", "two.test"))
    assert (await resolver.addresses("web", ("A",))).addresses == ("10.0.0.2",)
    server.answers["web.one.test", "A"] = SERVER_FAILURE
    with pytest.raises(ResolveError):
        await resolver.addresses("web", ("A",))


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test", ".".join(["a" * 60] * 6)])
async def test_a_name_that_no_question_can_hold_raises(server: NameServer, name: str) -> None:
    with pytest.raises(ResolveError):
        await asking(server).addresses(name, ("A",))


async def test_cancelling_leaves_nothing_behind(server: NameServer) -> None:
    server.answers[NAME, "A"] = server.answers[NAME, "AAAA"] = silence
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking(server).addresses(NAME, ("A", "AAAA")), name="ask")
        await server.questions.get()
        task.cancel()
    assert task.cancelled()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 199))
@example(b"\x00\x00", 58)  # an address of no class, beside the service
def test_a_message_of_any_bytes_is_an_answer_or_an_error(noise: bytes, at: int) -> None:
    query = dns.message.make_query(f"{NAME}.", "SRV")
    good = response((f"{NAME}. 60 SRV 0 1 80 a.test.",), (), ("a.test. 20 A 10.0.0.1",))(query) or b""
    spoilt = good[:at] + noise + good[at + len(noise) :]

    async def ask() -> Services:
        async with name_server() as server:
            server.answers[NAME, "SRV"] = lambda asked: asked.id.to_bytes(2, "big") + spoilt[2:]
            return await asking(server, timeout_s=0.05).services(NAME)

    try:
        found = asyncio.run(ask())
    except ResolveError:
        return
    assert all(each.target and 0 <= each.port <= 65535 for each in found.services)
