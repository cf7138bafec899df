"""A proxy that follows a URL, while what is behind the URL has every kind of trouble."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from tests.discovery.http.scripted import Write, hang, reply, scripted, slowly
from tests.e2e.conftest import Start
from tests.e2e.peers import echo, exchange, until, upstreams
from tests.e2e.program import Program, lbproxy
from tests.e2e.traffic import all_served
from tests.servers.ports import ReservedPort

CONFIG: Final = """
admin: {bind: '127.0.0.1:0'}
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams: {up: {discovery: {type: http, url: 'http://127.0.0.1:%d/endpoints', interval: 100ms, timeout: 500ms}}}
"""
TROUBLE: Final[dict[str, bytes | Write]] = {
    "500": reply(b"", "500 Internal Server Error"),
    "404": reply("[]", "404 Not Found"),
    "403": reply("[]", "403 Forbidden"),
    "html": reply("<html>maintenance</html>"),
    "nothing": reply(b"", "204 No Content"),
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n[",
    "closed": b"",
    "silent": hang,
    "slow": slowly(reply("[]"), 0.05),
}


def listing(*ports: int) -> bytes:
    return reply(json.dumps([f"127.0.0.1:{port}" for port in ports]))


def source(running: Program) -> dict[str, object]:
    (found,) = running.get("/api/v1/upstreams/up")["sources"]
    return dict(found)


def eligible(running: Program) -> set[int]:
    return {port for port, each in running.endpoints().items() if each["eligible"]}


async def test_a_change_is_followed_and_what_is_unchanged_does_nothing(start: Start) -> None:
    async with upstreams(echo, echo) as (one, two), scripted(listing(one.port)) as server:
        running = start(CONFIG % server.port)
        await until(lambda: eligible(running) == {one.port})
        server.script[:] = [listing(one.port, two.port)]
        await until(lambda: eligible(running) == {one.port, two.port})
        for _ in range(4):
            assert await exchange(running.address()) == b"x"
        assert (one.accepted, two.accepted) == (2, 2)
        asked = len(server.asked)
        await until(lambda: len(server.asked) >= asked + 3)
        results = source(running)["results"]
        assert isinstance(results, dict)
        assert results["applied"] == 2
        assert results["error"] == 0


async def test_no_trouble_of_the_server_costs_a_connection_or_an_endpoint(start: Start) -> None:
    async with upstreams(echo, echo, echo) as ups, scripted(hang) as server:
        ports = [each.port for each in ups]
        server.script[:] = [listing(*ports)]
        running = start(CONFIG % server.port)
        await until(lambda: eligible(running) == set(ports))
        async with all_served(running) as traffic:
            for name, trouble in TROUBLE.items():
                server.script[:] = [trouble]
                await until(lambda: source(running)["error"])
                await traffic.goes_on()
                assert eligible(running) == set(ports), name
                server.script[:] = [listing(*ports)]
                await until(lambda: not source(running)["error"])
            # An empty list right after an error is no news of anybody's end.
            server.script[:] = [reply(b"", "500 Oops"), reply("[]")]
            await until(lambda: source(running)["held"] == 3)
            await traffic.goes_on()
            assert eligible(running) == set(ports)
            server.script[:] = [listing(*ports)]
            await until(lambda: source(running)["held"] == 0)


async def test_a_server_that_dies_and_comes_back_is_followed_again(start: Start) -> None:
    with ReservedPort() as port:
        async with upstreams(echo, echo) as (one, two):
            async with scripted(listing(one.port), port=port.number):
                running = start(CONFIG % port.number)
                await until(lambda: eligible(running) == {one.port})
            async with all_served(running) as traffic:
                await until(lambda: source(running)["error"])
                await traffic.goes_on()
                async with scripted(listing(one.port, two.port), port=port.number):
                    await until(lambda: eligible(running) == {one.port, two.port})
                    await traffic.goes_on()


async def test_what_a_url_holds_after_its_question_mark_is_shown_nowhere(start: Start) -> None:
    """Neither from the file nor from the environment; nor what was written before the host, in an error of a reload."""
    url = "'http://127.0.0.1:%d/endpoints?token=${TOKEN}&key=hidden'"
    config = "log: {level: debug}\n" + CONFIG.replace("'http://127.0.0.1:%d/endpoints'", url)
    async with scripted(reply(b"", "500 Oops")) as server:
        running = start(config % server.port, environ={"TOKEN": "hidden"})
        await until(lambda: source(running)["error"])
        await until(lambda: running.said("answered 500"))
        assert "token=hidden&key=hidden" in str(server.asked[0])
        running.write(config.replace("http:", "htp://u:hidden@") % server.port)
        assert running.ask("POST", "/api/v1/reload")[0] == 409
        paths = ("/", "/readyz", "/metrics", "/api/v1/config", "/api/v1/upstreams", "/api/v1/upstreams/up")
        shown = {path: running.ask("GET", path)[1].decode() for path in paths}
        shown["reload"] = running.ask("POST", "/api/v1/reload")[1].decode()
        shown["status"] = (
            await asyncio.to_thread(lbproxy, "status", "--json", "--admin", running.admin)
        ).stdout
        shown["log"] = running.stderr()
        assert [name for name, text in shown.items() if "hidden" in text] == []
        for name in ("/readyz", "/api/v1/config", "/api/v1/upstreams/up", "status", "log"):
            assert "/endpoints?token=***&key=***" in shown[name], name
