"""A proxy that follows ZooKeeper: instances come and go, and the ensemble's own troubles cost nobody a connection."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.discovery.zookeeper.instances import instances
from tests.e2e.conftest import Start
from tests.e2e.peers import echo, exchange, until, upstreams
from tests.e2e.program import Program
from tests.e2e.traffic import all_served
from tests.servers.restartable import Restartable
from tests.servers.zookeeper import restartable

pytestmark = [pytest.mark.foreign, pytest.mark.slow]

CONFIG: Final = """
admin: {bind: '127.0.0.1:0'}
%s
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams: {up: {discovery: {type: zookeeper, hosts: '127.0.0.1:%d', path: /services/web, session_timeout: 1s}}}
"""
NODE: Final = "/services/web"
LONG_S: Final = 120.0  # a hang's bound: a back-off may take 30 s


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[Restartable]:
    with ExitStack() as stack:
        yield Restartable(partial(restartable, tmp_path), stack)


def source(running: Program) -> dict[str, Any]:
    (found,) = running.get("/api/v1/upstreams/up")["sources"]
    return dict(found)


def eligible(running: Program) -> set[int]:
    return {port for port, each in running.endpoints().items() if each["eligible"]}


async def test_instances_are_followed(start: Start, ensemble: Restartable) -> None:
    async with upstreams(echo, echo, echo) as ups, instances(ensemble.port) as some:
        ports = [each.port for each in ups]
        running = start(CONFIG % ("", ensemble.port))
        for port in ports:
            await some.create(f"{NODE}/127.0.0.1:{port}")
        await until(lambda: eligible(running) == set(ports))
        for _ in range(6):
            assert await exchange(running.address()) == b"x"
        assert [each.accepted for each in ups] == [2, 2, 2]
        weighty = json.dumps({"address": f"127.0.0.1:{ports[0]}", "weight": 4, "zone": "z"})
        await some.set(f"{NODE}/127.0.0.1:{ports[0]}", weighty)
        await until(lambda: running.endpoints()[ports[0]]["weight"] == 4)
        await some.delete(f"{NODE}/127.0.0.1:{ports[1]}")
        await until(lambda: eligible(running) == {ports[0], ports[2]})
        await some.set(f"{NODE}/127.0.0.1:{ports[2]}", "169.254.169.254:80")
        await until(lambda: source(running)["refused"].get("link_local"))


async def test_no_trouble_of_the_ensemble_costs_a_connection_or_an_endpoint(
    start: Start, ensemble: Restartable
) -> None:
    async with upstreams(echo, echo, echo) as ups:
        ports = {each.port for each in ups}
        running = start(CONFIG % ("", ensemble.port))

        async def all_there() -> None:
            await traffic.goes_on()
            assert eligible(running) == ports

        async with instances(ensemble.port) as some:
            for port in ports:
                await some.create(f"{NODE}/127.0.0.1:{port}", ephemeral=False)
            await until(lambda: eligible(running) == ports)
        async with all_served(running) as traffic:
            # restarted, with all it knew
            await ensemble.stop()
            await until(lambda: source(running)["error"], LONG_S)
            await all_there()
            await ensemble.start()
            await until(lambda: not source(running)["error"], LONG_S)
            await all_there()
            # stopped for longer than the session lasts, and continued
            ensemble.server.signal(signal.SIGSTOP)
            try:
                await until(lambda: source(running)["error"], LONG_S)
                await all_there()
            finally:
                ensemble.server.signal(signal.SIGCONT)
            await until(lambda: not source(running)["error"], LONG_S)
            await all_there()
            # restarted without anything it knew: what it says is held
            await ensemble.stop()
            await ensemble.start(empty=True)
            await until(lambda: source(running)["held"] == 3, LONG_S)
            await all_there()
            assert "held" in running.get("/readyz")["warnings"][0]
            # the instances register again, and it is followed as before
            async with instances(ensemble.port) as some:
                for port in ports:
                    await some.create(f"{NODE}/127.0.0.1:{port}", ephemeral=False)
                    await all_there()
                await until(lambda: source(running)["held"] == 0, LONG_S)
                gone = min(ports)
                await some.delete(f"{NODE}/127.0.0.1:{gone}")
                await until(lambda: eligible(running) == ports - {gone})
                await traffic.goes_on()


async def test_a_cold_start_without_zookeeper_serves_what_was_known(
    start: Start, ensemble: Restartable, tmp_path: Path
) -> None:
    config = CONFIG % (f"runtime: {{state_dir: '{tmp_path / 'state'}'}}", ensemble.port)
    async with upstreams(echo) as (one,):
        async with instances(ensemble.port) as some:
            await some.create(f"{NODE}/127.0.0.1:{one.port}", ephemeral=False)
        first = start(config)
        await until(lambda: eligible(first) == {one.port})
        await until(lambda: list(tmp_path.glob("state/discovery/*.json")))
        assert first.stop() == 0
        await ensemble.stop()
        second = start(config)
        assert await exchange(second.address()) == b"x"
        assert second.endpoints()[one.port]["unverified"]
        await ensemble.start()
        await until(lambda: not second.endpoints()[one.port]["unverified"], LONG_S)


async def test_the_program_ends_at_once_while_zookeeper_is_stopped(
    start: Start, ensemble: Restartable
) -> None:
    running = start(CONFIG % ("", ensemble.port))
    await until(lambda: source(running)["results"]["applied"])
    ensemble.server.signal(signal.SIGSTOP)
    try:
        running.signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait, 20.0) == 0
    finally:
        ensemble.server.signal(signal.SIGCONT)
