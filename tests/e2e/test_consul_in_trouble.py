"""Consul in trouble, while 300 new connections a second go through: none fails, the upstream never empties, and the watch recovers by
itself. LBPROXY_CONFORMANCE=full lets each trouble last a minute."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import Upstream, echo, until, upstreams
from tests.e2e.program import Program
from tests.e2e.traffic import RATE, Traffic, flowing
from tests.servers.consul import Consul
from tests.servers.consul_imitation import (
    ConsulImitation,
    Fault,
    alternating,
    consul_imitation,
    cut_short,
    empty,
    hang_up,
    instance,
    keep_silent,
    refuse,
    say,
    trickle,
    with_headers,
)

FULL: Final = os.environ.get("LBPROXY_CONFORMANCE") == "full"
TROUBLE_S: Final = 60.0 if FULL else 2.0
RECOVERS_WITHIN_S: Final = 120.0  # at most: one time-out (11 s), and one back-off, of at most 30 s

pytestmark = pytest.mark.slow

LEAST: Final = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'


def config(address: str, more: str = "") -> str:
    return (
        "admin: {bind: '127.0.0.1:0'}\n"
        "log: {format: json, access: {enabled: false}}\n"
        "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
        f"upstreams: {{up: {{discovery: {{type: consul, address: '{address}', service: web, wait: 1s{more}}}}}}}\n"
    )


@asynccontextmanager
async def served(
    start: Start, address: str, ups: list[Upstream], more: str = "", least: int = 4
) -> AsyncIterator[tuple[Program, Traffic]]:
    """The program with traffic through it, once it knows all upstreams but the last; at the end nothing has failed, and there were
    always that many endpoints at least."""
    running = await asyncio.to_thread(start, config(address, more))
    known = {each.port for each in ups[:-1]}
    await until(lambda: known <= set(running.endpoints()))
    async with flowing(running) as traffic:
        yield running, traffic
    assert traffic.failures == []
    assert traffic.fewest is not None
    assert traffic.fewest >= least
    assert traffic.done > RATE / 3


def source(running: Program) -> dict[str, Any]:
    """How the upstream's source fares."""
    return dict(running.get("/api/v1/upstreams/up")["sources"][0])


async def recovered(late: Upstream) -> None:
    """An instance that was registered after the trouble gets connections."""
    await until(lambda: late.accepted, within_s=RECOVERS_WITHIN_S)


async def lasts(seconds: float = TROUBLE_S) -> None:
    """The trouble goes on: time is what is tried here."""
    await asyncio.sleep(seconds)


def register(consul: Consul, *ups: Upstream) -> Awaitable[None]:
    def all_of_them() -> None:
        for up in ups:
            consul.register(up.port)

    return asyncio.to_thread(all_of_them)


async def test_an_agent_is_killed_and_started_again_with_nothing(start: Start, consul: Consul) -> None:
    async with upstreams(*[echo] * 5) as ups:
        await register(consul, *ups[:-1])
        async with served(start, consul.address, ups) as (running, _):
            await asyncio.to_thread(consul.kill)
            await lasts()
            await asyncio.to_thread(consul.start)
            await asyncio.to_thread(consul.wait_for_leader)
            await lasts()
            # One by one, as instances do: what is still missing is held.
            await register(consul, ups[-1])
            await recovered(ups[-1])
            await register(consul, *ups[:-1])
            await until(lambda: source(running)["held"] == 0)


async def test_an_agent_is_stopped_and_goes_on(start: Start, consul: Consul) -> None:
    async with upstreams(*[echo] * 5) as ups:
        await register(consul, *ups[:-1])
        async with served(start, consul.address, ups):
            consul.signal(signal.SIGSTOP)
            await lasts()
            consul.signal(signal.SIGCONT)
            await register(consul, ups[-1])
            await recovered(ups[-1])


async def test_the_leader_of_three_servers_is_lost(start: Start, consul_servers: list[Consul]) -> None:
    """Three of four instances were registered with the leader's own agent: they live on, while Consul takes their node for lost. The
    guard holds so many removals, and obeys in the end if Consul says the same again and all is well otherwise."""
    leader = next(
        each
        for each in consul_servers
        if each.ask("GET", "/v1/status/leader") == f"127.0.0.1:{each.ports['server']}"
    )
    watched = next(each for each in consul_servers if each is not leader)
    async with upstreams(*[echo] * 5) as ups:
        await register(leader, *ups[:3])
        await register(watched, ups[3])
        async with served(start, watched.address, ups, least=1) as (running, _):
            await asyncio.to_thread(leader.kill)
            await until(lambda: source(running)["held"] == 3, RECOVERS_WITHIN_S)
            await lasts()
            await asyncio.to_thread(watched.wait_for_leader)
            await register(watched, ups[-1])
            await recovered(ups[-1])


async def test_a_token_is_revoked_then_narrowed_then_good_again(
    start: Start, consul_with_acls: Consul, tmp_path: Path
) -> None:
    agent, file = consul_with_acls, tmp_path / "token"
    good, narrow = agent.token(LEAST), agent.token('node_prefix "" { policy = "read" }')
    file.write_text(good)
    async with upstreams(*[echo] * 5) as ups:
        await register(agent, *ups[:-1])
        async with served(start, agent.address, ups, f", token: {{file: '{file}'}}") as (running, _):
            for token, words in [
                ("00000000-0000-0000-0000-000000000000", "403 ACL not found"),
                (narrow, "may not read the service"),
            ]:
                file.write_text(token)

                def told(words: str = words) -> bool:
                    return words in source(running)["error"]

                await until(told, RECOVERS_WITHIN_S)
                await lasts()
            file.write_text(good)
            await register(agent, ups[-1])
            await recovered(ups[-1])


TROUBLES: Final[dict[str, Callable[[], Fault]]] = {
    "500": lambda: refuse(500, "No cluster leader"),
    "403": lambda: refuse(403, "Permission denied"),
    "429": lambda: refuse(429, "Your IP is issuing too many requests", Retry_After="1"),
    "garbage": lambda: say('[{"Node": {"Node"'),
    "a page of a proxy": lambda: say("<html>502</html>"),
    "one byte a second": lambda: trickle,
    "half an answer": lambda: cut_short,
    "no answer": lambda: keep_silent,
    "connections break": lambda: hang_up,
    "the index is 1 and nothing is there": lambda: with_index("1"),
    "the index is 0 and nothing is there": lambda: with_index("0"),
    "alternating empty and full": alternating,
    "empty but for consistent reads": empty,
    "filtered": lambda: with_headers(X_Consul_Results_Filtered_By_ACLs="true"),
    "no known leader": lambda: with_headers(X_Consul_KnownLeader="false"),
}


def with_index(index: str) -> Fault:
    async def fault(imitation: ConsulImitation, _: object) -> object:
        return imitation.reply([], X_Consul_Index=index)

    return fault  # type: ignore[return-value]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_what_is_no_answer_changes_nothing(start: Start, trouble: str) -> None:
    async with consul_imitation() as imitation, upstreams(*[echo] * 5) as ups:
        known = [instance(up.port) for up in ups[:-1]]
        imitation.change(*known)
        async with served(start, imitation.address, ups):
            imitation.trouble(TROUBLES[trouble]())
            await lasts()
            imitation.change(*known, instance(ups[-1].port))
            imitation.trouble(None)
            await recovered(ups[-1])
