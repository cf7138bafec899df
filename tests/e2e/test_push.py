"""Instances that register with a running lbproxy: what is routed to them, and what is left when they fall silent."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import Upstream, echo, exchange, until, upstreams
from tests.e2e.program import Program, lbproxy
from tests.patience import WITHIN_S
from tests.servers.programs import require

PUSHED: Final = """
admin: {bind: '127.0.0.1:0'}
%s
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams: {up: {discovery: {type: push}, connect: {timeout: 1s}}}
"""
STATIC: Final = """
admin: {bind: '127.0.0.1:0'}
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams: {up: {endpoints: ['127.0.0.1:%d']}}
"""


def path(port: int) -> str:
    return f"/api/v1/upstreams/up/endpoints/127.0.0.1%3A{port}"


def put(running: Program, port: int, **body: Any) -> int:
    return running.ask("PUT", path(port), json.dumps(body))[0]


def curl(running: Program, port: int, body: str) -> str:
    """What an instance's start script does; the answer and its status."""
    url = f"http://{running.admin}{path(port)}"
    words = [
        "-sS",
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/json",
        "-w",
        "%{http_code}",
        "-d",
        body,
        url,
    ]
    return subprocess.run([require("curl"), *words], capture_output=True, text=True, check=True).stdout


def eligible(running: Program) -> set[int]:
    return {port for port, each in running.endpoints().items() if each["eligible"]}


async def shares(running: Program, targets: list[Upstream], count: int) -> Counter[int]:
    """Who serves so many connections."""
    before = {each.port: each.accepted for each in targets}
    for _ in range(count):
        assert await exchange(running.address()) == b"x"
    return Counter({each.port: each.accepted - before[each.port] for each in targets})


@pytest.mark.foreign
async def test_an_instance_registers_with_curl_and_is_gone_when_it_stops_renewing(start: Start) -> None:
    running = start(PUSHED % "")
    assert not running.ready()
    async with upstreams(echo, echo, echo) as three:
        for each in three:
            body = '{"lease_s": 60, "weight": 1, "zone": "z1", "metadata": {"v": "2"}}'
            assert (await asyncio.to_thread(curl, running, each.port, body)).endswith("201")
        ports = {each.port for each in three}
        await until(lambda: eligible(running) == ports)
        assert running.ready()
        found = running.endpoints()[three[0].port]
        assert (found["zone"], found["metadata"]) == ("z1", {"v": "2"})
        assert await shares(running, three, 6) == dict.fromkeys(ports, 2)

        assert put(running, three[0].port, lease_s=60, weight=4) == 200
        await until(lambda: running.endpoints()[three[0].port]["weight"] == 4)
        assert (await shares(running, three, 6))[three[0].port] == 4

        assert put(running, three[0].port, lease_s=1) == 200
        await until(lambda: eligible(running) == ports - {three[0].port})
        assert (await shares(running, three, 4))[three[0].port] == 0

        assert running.ask("DELETE", path(three[1].port))[0] == 200
        await until(lambda: eligible(running) == {three[2].port})
        assert running.ask("DELETE", path(three[1].port))[0] == 404


async def test_the_last_one_is_held_until_a_second_look_says_the_same(start: Start) -> None:
    running = start(PUSHED % "")
    async with upstreams(echo) as (one,):
        put(running, one.port, lease_s=1)
        await until(lambda: running.get("/api/v1/upstreams/up")["sources"][0]["held"] == 1)
        assert await exchange(running.address()) == b"x"
        assert any("held" in each for each in running.get("/readyz")["warnings"])
        await until(lambda: not running.ready())


async def test_every_upstream_takes_registrations_beside_what_is_configured(start: Start) -> None:
    async with upstreams(echo, echo) as (configured, pushed):
        running = start(STATIC % configured.port)
        assert [each["name"] for each in running.get("/api/v1/upstreams/up")["sources"]] == ["static"]
        assert put(running, pushed.port) == 201
        assert put(running, configured.port, weight=9) == 201
        await until(lambda: eligible(running) == {configured.port, pushed.port})
        # what is configured stands first
        assert running.endpoints()[configured.port]["weight"] == 1
        assert await shares(running, [configured, pushed], 4) == {configured.port: 2, pushed.port: 2}


async def test_leases_survive_a_reload(start: Start) -> None:
    async with upstreams(echo, echo, echo) as (configured, pushed, other):
        running = start(STATIC % configured.port)
        put(running, pushed.port, lease_s=60)
        await until(lambda: pushed.port in eligible(running))
        running.write(STATIC % other.port)
        assert running.post("/api/v1/reload")["result"] == "applied"
        await until(lambda: eligible(running) == {other.port, pushed.port})
        assert put(running, pushed.port, lease_s=1) == 200
        # and what is held when they have run out, too
        await until(lambda: running.get("/api/v1/upstreams/up")["sources"][1]["held"] == 1)
        running.write(STATIC % configured.port)
        assert running.post("/api/v1/reload")["result"] == "applied"
        await until(lambda: eligible(running) == {configured.port, pushed.port})


async def test_after_a_restart_those_of_before_are_served_until_they_come_again(
    start: Start, tmp_path: Path
) -> None:
    state = f"runtime: {{state_dir: '{tmp_path / 'state'}'}}"
    async with upstreams(echo, echo) as both:
        first = start(PUSHED % state)
        ports = {each.port for each in both}
        for each in both:
            put(first, each.port)
        await until(lambda: eligible(first) == ports)
        await until(lambda: all(str(port) in _saved(tmp_path) for port in ports))
        assert first.stop() == 0
        second = start(PUSHED % state)
        assert eligible(second) == ports
        assert await shares(second, both, 2) == dict.fromkeys(ports, 1)
        assert put(second, both[0].port) == 201
        await until(lambda: not second.endpoints()[both[0].port]["unverified"])
        assert eligible(second) == ports


def _saved(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.glob("state/discovery/*.json"))


async def test_what_nobody_should_dial_is_refused_at_the_door_with_the_reason(start: Start) -> None:
    running = start((PUSHED % "").rstrip().removesuffix("}") + ", any: {type: original_dst}}\n")
    own = running.address()[1]
    for address, status, reason in (
        ("169.254.169.254%3A80", 422, "link_local"),
        ("%5Bfd00%3Aec2%3A%3A254%5D%3A80", 422, "cloud_metadata"),
        (f"127.0.0.1%3A{own}", 422, "own_listener"),
        ("0.0.0.0%3A80", 422, "address"),
        ("10.0.0.1%3A0", 422, "port"),
        ("unix%3A%2Frun%2Fx.sock", 422, "unix"),
        ("10.0.0.1", 400, "host:port"),
    ):
        found, body = running.ask("PUT", f"/api/v1/upstreams/up/endpoints/{address}", "{}")
        assert found == status
        assert reason in json.loads(body)["detail"]
    assert put(running, 80, weight=70000) == 422
    assert put(running, 80, metadata={"k": "v" * 2000}) == 422
    assert running.ask("PUT", "/api/v1/upstreams/any/endpoints/10.0.0.1%3A80", "{}")[0] == 409
    assert running.ask("PUT", "/api/v1/upstreams/none/endpoints/10.0.0.1%3A80", "{}")[0] == 404
    assert running.endpoints() == {}


async def test_a_limit_bounds_how_many_register(start: Start) -> None:
    running = start((PUSHED % "").replace("{type: push}", "{type: push, limit: 2}"))
    assert [put(running, port) for port in (81, 82, 83, 81)] == [201, 201, 409, 200]


async def test_the_command_registers_once_and_takes_it_back(start: Start) -> None:
    running = start(PUSHED % "")
    async with upstreams(echo, echo) as (one, other):
        put(running, other.port)
        words = ["up", f"127.0.0.1:{one.port}", "--admin", running.admin]
        done = await asyncio.to_thread(
            lbproxy, "register", *words, "--weight", "2", "--zone", "z", "--metadata", "a=b"
        )
        assert (done.returncode, done.stdout) == (0, f"up 127.0.0.1:{one.port}: registered for 30 s\n")
        await until(lambda: one.port in eligible(running))
        found = running.endpoints()[one.port]
        assert (found["weight"], found["zone"], found["metadata"]) == (2, "z", {"a": "b"})
        assert (await asyncio.to_thread(lbproxy, "deregister", *words)).returncode == 0
        await until(lambda: one.port not in eligible(running))
        again = await asyncio.to_thread(lbproxy, "deregister", *words)
        assert (again.returncode, "404" in again.stderr) == (1, True)
        refused = await asyncio.to_thread(
            lbproxy, "register", "up", "169.254.0.1:1", "--admin", running.admin
        )
        assert (refused.returncode, "link_local" in refused.stderr) == (1, True)


def keeping(log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        command = [sys.executable, "-m", "lbproxy", "register", *words, "--keep"]
        return subprocess.Popen(command, stdout=out, stderr=out)


async def test_the_command_keeps_a_lease_across_a_restart_and_leaves_when_it_is_stopped(
    start: Start, tmp_path: Path
) -> None:
    running = start(PUSHED % "")
    config = (PUSHED % "").replace("'127.0.0.1:0'}\n", f"'{running.admin}'}}\n", 1)
    async with upstreams(echo, echo) as (one, other):
        log = tmp_path / "keep.log"
        keeper = keeping(log, "up", f"127.0.0.1:{one.port}", "--lease", "2s", "--admin", running.admin)
        try:
            await until(lambda: one.port in eligible(running))
            put(running, other.port)
            accepted = one.accepted
            running.passes(5.0)  # two and a half leases
            assert one.port in eligible(running)
            assert running.stop() == 0
            await until(lambda: "trying again" in log.read_text())
            second = start(config)
            await until(lambda: one.port in eligible(second))
            put(second, other.port)
            await until(lambda: other.port in eligible(second))
            assert await exchange(second.address()) == b"x"
            assert one.accepted + other.accepted > accepted
            keeper.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(keeper.wait, WITHIN_S) == 0
            await until(lambda: eligible(second) == {other.port})
            assert log.read_text().splitlines()[-1].endswith("deregistered")
        finally:
            keeper.kill()
            keeper.wait()
