"""A proxy that follows a name in DNS, while the name server has every kind of trouble."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import echo, until, upstreams
from tests.e2e.program import Program
from tests.e2e.traffic import all_served
from tests.servers.knot import Knot
from tests.wire.name_server import (
    NO_DATA,
    NO_SUCH_NAME,
    SERVER_FAILURE,
    Script,
    garbage,
    name_server,
    rcode,
    records,
    silence,
    stranger,
)

CONFIG: Final = """
admin: {bind: '127.0.0.1:0'}
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams:
  up:
    discovery: {type: dns, name: _web._tcp.example.test., record: srv, servers: ['127.0.0.1:PORT'],
                ttl: {min: 250ms, max: 500ms}, timeout: 500ms}
"""
NAME: Final = "_web._tcp.example.test"
TARGET: Final = "ns.example.test"  # Knot's zone has it, too


def config(address: tuple[str, int]) -> str:
    return CONFIG.replace("PORT", str(address[1]))


def listing(*ports: int) -> list[str]:
    return [f"0 1 {port} {TARGET}." for port in ports]


def source(running: Program) -> dict[str, object]:
    (found,) = running.get("/api/v1/upstreams/up")["sources"]
    return dict(found)


def eligible(running: Program) -> set[int]:
    return {port for port, each in running.endpoints().items() if each["eligible"]}


def referral(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.authority.append(dns.rrset.from_text("example.test.", 60, "IN", "NS", "ns.elsewhere."))
    return response.to_wire()


def always_cut(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()


TROUBLE: Final[dict[str, Script]] = {
    "SERVFAIL": SERVER_FAILURE,
    "REFUSED": rcode(dns.rcode.REFUSED),
    "silence": silence,
    "garbage": garbage,
    "an answer to somebody else": stranger,
    "a referral": referral,
    "truncated by UDP and TCP": always_cut,
    "a target that nobody knows": records(f"0 1 80 {TARGET}.", "0 1 80 gone.example.test."),
}


async def test_no_trouble_of_the_server_costs_a_connection_or_an_endpoint(start: Start) -> None:
    async with upstreams(echo, echo, echo) as ups, name_server() as server:
        ports = [each.port for each in ups]
        good = records(*listing(*ports), ttl=0)
        server.answers[NAME, "SRV"] = good
        server.answers[TARGET, "A"] = records("127.0.0.1", ttl=0)
        server.answers[TARGET, "AAAA"] = NO_DATA
        running = start(config(server.address))
        await until(lambda: eligible(running) == set(ports))
        async with all_served(running) as traffic:
            for name, script in TROUBLE.items():
                server.answers[NAME, "SRV"] = script
                await until(lambda: source(running)["error"])
                await traffic.goes_on()
                assert eligible(running) == set(ports), name
                server.answers[NAME, "SRV"] = good
                await until(lambda: not source(running)["error"])
            # Its targets only: a part of the answer is none.
            server.answers[TARGET, "A"] = SERVER_FAILURE
            await until(lambda: source(running)["error"])
            await traffic.goes_on()
            assert eligible(running) == set(ports)
            server.answers[TARGET, "A"] = records("127.0.0.1", ttl=0)
            await until(lambda: not source(running)["error"])
        assert [question for _, question in server.asked if question[0] == NAME]


@pytest.mark.slow
@pytest.mark.parametrize("denial", [NO_SUCH_NAME, NO_DATA], ids=["NXDOMAIN", "NODATA"])
async def test_a_name_that_is_denied_empties_nothing(start: Start, denial: Script) -> None:
    async with upstreams(echo, echo) as ups, name_server() as server:
        ports = [each.port for each in ups]
        good = records(*listing(*ports), ttl=0)
        server.answers[NAME, "SRV"] = good
        server.answers[TARGET, "A"] = records("127.0.0.1", ttl=0)
        running = start(config(server.address))
        await until(lambda: eligible(running) == set(ports))
        async with all_served(running) as traffic:
            server.answers[NAME, "SRV"] = denial
            await until(lambda: source(running)["held"] == len(ports))
            await traffic.goes_on()
            assert eligible(running) == set(ports)
            server.answers[NAME, "SRV"] = good
            await until(lambda: source(running)["held"] == 0)


async def test_a_real_server_that_stops_dies_and_forgets_is_followed_again(start: Start, knot: Knot) -> None:
    async with upstreams(echo, echo, echo) as ups:
        one, two, three = (each.port for each in ups)

        async def publish(*ports: int) -> None:
            await asyncio.to_thread(knot.set, "_web._tcp", "SRV", *listing(*ports), ttl=0)

        await publish(one, two)
        running = start(config(knot.address))
        await until(lambda: eligible(running) == {one, two})
        async with all_served(running) as traffic:
            await publish(one, two, three)
            await until(lambda: eligible(running) == {one, two, three})
            await publish(two, three)
            await until(lambda: eligible(running) == {two, three})
            knot.signal(signal.SIGSTOP)
            try:
                await until(lambda: source(running)["error"])
                await traffic.goes_on()
                assert eligible(running) == {two, three}
            finally:
                knot.signal(signal.SIGCONT)
            await until(lambda: not source(running)["error"])
            await asyncio.to_thread(knot.kill)
            await until(lambda: source(running)["error"])
            await traffic.goes_on()
            assert eligible(running) == {two, three}
            await asyncio.to_thread(knot.start)  # and it has forgotten everything
            await until(lambda: source(running)["held"] == 2)
            await traffic.goes_on()
            assert eligible(running) == {two, three}
            await publish(one, two, three)
            await until(lambda: eligible(running) == {one, two, three})
            assert source(running)["held"] == 0
