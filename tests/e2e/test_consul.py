"""Consul and the program together, as operators use them: what they do in Consul is where new sessions go, and what they are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.peers import Upstream, echo, exchange, hold, hold_one, receive, until, upstreams
from tests.e2e.program import Program, lbproxy
from tests.servers.consul import Consul, ttl


def config(consul: Consul, *, more: str = "", upstream: str = "", sources: str = "") -> str:
    source = sources or f"{{type: consul, address: '{consul.address}', service: web{more}}}"
    return (
        "admin: {bind: '127.0.0.1:0'}\n"
        "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
        f"upstreams: {{up: {{discovery: {source}{upstream}}}}}\n"
    )


async def shares(running: Program, ups: list[Upstream], number: int = 60) -> list[int]:
    """How many of that many connections each upstream gets."""
    before = [up.accepted for up in ups]
    for _ in range(number):
        assert await exchange(running.address()) == b"x"
    return [up.accepted - one for up, one in zip(ups, before, strict=True)]


def told(running: Program, up: Upstream) -> dict[str, Any]:
    return running.endpoints()[up.port]


async def test_what_operators_do_in_consul_is_where_sessions_go(start: Start, consul: Consul) -> None:
    async with upstreams(echo, echo, echo) as ups:
        one, two, three = ups
        consul.register(one.port)
        consul.register(two.port, Weights={"Passing": 2, "Warning": 1}, checks=[ttl("c2")])
        running = await asyncio.to_thread(start, config(consul))
        await until(lambda: len(running.endpoints()) == 2)
        assert await shares(running, ups) == [20, 40, 0]

        consul.set_check("c2", "warning")
        await until(lambda: told(running, two)["weight"] == 1)
        assert await shares(running, ups) == [30, 30, 0]

        consul.set_check("c2", "critical")
        await until(lambda: not told(running, two)["eligible"])
        assert told(running, two)["ineligible"] == ["weight_zero"]
        assert told(running, two)["metadata"]["consul-status"] == "critical: check c2 is critical"
        assert await shares(running, ups) == [60, 0, 0]

        consul.register(three.port, Meta={"lbproxy-weight": "5", "lbproxy-zone": "a", "version": "2"})
        await until(lambda: three.port in running.endpoints())
        found = told(running, three)
        assert (found["weight"], found["zone"], found["metadata"]["version"]) == (5, "a", "2")
        assert await shares(running, ups) == [10, 0, 50]

        consul.set_check("c2", "passing")
        consul.deregister(f"web-{three.port}")
        await until(lambda: told(running, two)["weight"] == 2 and not told(running, three)["eligible"])
        assert await shares(running, ups) == [20, 40, 0]


async def test_sessions_of_an_instance_in_maintenance_go_on(start: Start, consul: Consul) -> None:
    async with upstreams(hold, echo) as ups:
        consul.register(ups[0].port)
        running = await asyncio.to_thread(start, config(consul))
        await until(lambda: len(running.endpoints()) == 1)
        with await hold_one(running.address()) as client:
            consul.register(ups[1].port)
            consul.maintenance(f"web-{ups[0].port}", on=True, reason="new disk")
            await until(lambda: len(running.endpoints()) == 2 and not told(running, ups[0])["eligible"])
            assert told(running, ups[0])["metadata"]["consul-status"] == "maintenance: new disk"
            assert await shares(running, ups, 10) == [0, 10]
            assert told(running, ups[0])["active"] == 1
            consul.maintenance(f"web-{ups[0].port}", on=False)
            await until(lambda: told(running, ups[0])["eligible"])
            client.shutdown(1)
            assert await receive(client) == b""


async def test_the_last_instance_is_taken_away_after_a_second_look(start: Start, consul: Consul) -> None:
    async with upstreams(echo) as ups:
        consul.register(ups[0].port)
        running = await asyncio.to_thread(start, config(consul))
        await until(lambda: len(running.endpoints()) == 1)
        consul.deregister(f"web-{ups[0].port}")
        await until(lambda: running.get("/api/v1/upstreams/up")["sources"][0]["held"] == 1)
        assert await exchange(running.address()) == b"x"
        await until(lambda: running.get("/api/v1/upstreams/up")["endpoints_total"] == 0)
        assert running.get("/api/v1/upstreams/up")["sources"][0]["results"]["confirmed"] == 1


async def test_a_reload_changes_the_question_and_keeps_what_is_the_same(
    start: Start, consul: Consul, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("unused")
    token = f", token: {{file: '{tmp_path / 'token'}'}}"
    async with upstreams(echo, echo) as ups:
        consul.register(ups[0].port, Tags=["blue"])
        consul.register(ups[1].port, Tags=["green"])
        running = await asyncio.to_thread(start, config(consul, more=", tags: [blue]"))
        await until(lambda: list(running.endpoints()) == [ups[0].port])
        running.write(config(consul, more=", tags: [blue]"))
        assert running.post("/api/v1/reload")["result"] == "unchanged"
        running.write(config(consul, more=", tags: [green]"))
        assert running.post("/api/v1/reload")["result"] == "applied"
        await until(lambda: ups[1].port in running.endpoints())
        running.write(config(consul, more=", tags: [green]" + token))
        assert running.post("/api/v1/reload")["result"] == "applied"
        assert running.post("/api/v1/reload")["result"] == "unchanged"
        assert await exchange(running.address()) == b"x"


async def test_two_services_and_a_prepared_query_are_merged(start: Start, consul: Consul) -> None:
    async with upstreams(echo, echo, echo) as ups:
        consul.register(ups[0].port, service="one")
        consul.register(ups[1].port, service="two")
        consul.register(ups[2].port, service="three")
        consul.ask("POST", "/v1/query", {"Name": "third", "Service": {"Service": "three"}})
        which = ["service: one", "service: two", "query: third"]
        sources = ", ".join(f"{{type: consul, address: '{consul.address}', {each}}}" for each in which)
        running = await asyncio.to_thread(start, config(consul, sources=f"[{sources}]"))
        await until(lambda: len(running.endpoints()) == 3)
        assert await shares(running, ups) == [20, 20, 20]


def test_the_example_is_good() -> None:
    file = Path(__file__).resolve().parents[2] / "config" / "consul.yaml"
    done = lbproxy("check", "-c", str(file))
    assert done.returncode == 0
    # The token it names is not on this machine, and nothing else is wrong with it.
    said = [line.partition(": /run/secrets/consul-token: ")[0] for line in done.stderr.splitlines()]
    assert said == [f"warning: upstreams.{name}.discovery.token" for name in ("web", "orders-db")]
