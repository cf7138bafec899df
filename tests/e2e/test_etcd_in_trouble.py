"""etcd in trouble, while 300 new connections a second go through: none fails, the upstream never empties, and the watch recovers by
itself. LBPROXY_CONFORMANCE=full lets each trouble last a minute."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import Upstream, echo, until, upstreams
from tests.e2e.program import Program
from tests.e2e.traffic import RATE, Traffic, flowing
from tests.servers.etcd import Etcd

FULL: Final = os.environ.get("LBPROXY_CONFORMANCE") == "full"
TROUBLE_S: Final = 60.0 if FULL else 3.0
RECOVERS_WITHIN_S: Final = 120.0  # at most: a silence, a time-out, and one back-off of at most 30 s
COMPACT_EVERY_S: Final = 2.0
PREFIX: Final = "/services/web/"

pytestmark = pytest.mark.slow


def config(etcd: Etcd, more: str = "") -> str:
    return (
        "admin: {bind: '127.0.0.1:0'}\n"
        "log: {format: json, access: {enabled: false}}\n"
        "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
        f"upstreams: {{up: {{discovery: {{type: etcd, addresses: '{etcd.url}', prefix: {PREFIX}{more}}}}}}}\n"
    )


def register(etcd: Etcd, *ups: Upstream, lease: int = 0) -> None:
    for up in ups:
        etcd.put(f"{PREFIX}{up.port}", f"127.0.0.1:{up.port}", lease)


def source(running: Program) -> dict[str, Any]:
    """How the upstream's source fares."""
    return dict(running.get("/api/v1/upstreams/up")["sources"][0])


@asynccontextmanager
async def served(
    start: Start, etcd: Etcd, ups: list[Upstream], more: str = ""
) -> AsyncIterator[tuple[Program, Traffic]]:
    """The program with traffic through it, once it knows all upstreams but the last; at the end nothing has failed, and the last one,
    which is registered now, gets connections."""
    await asyncio.to_thread(register, etcd, *ups[:-1])
    running = await asyncio.to_thread(start, config(etcd, more))
    known = {each.port for each in ups[:-1]}
    await until(lambda: known <= set(running.endpoints()))
    async with flowing(running) as traffic:
        yield running, traffic
        await asyncio.to_thread(register, etcd, ups[-1])
        await until(lambda: ups[-1].accepted, within_s=RECOVERS_WITHIN_S)
    assert traffic.failures == []
    assert traffic.fewest == len(known)
    assert traffic.done > RATE / 3


async def lasts(seconds: float = TROUBLE_S) -> None:
    """The trouble goes on: time is what is tried here."""
    await asyncio.sleep(seconds)


async def test_what_is_registered_and_taken_away_is_followed(start: Start, etcd: Etcd) -> None:
    async with upstreams(*[echo] * 3) as ups:
        running = await asyncio.to_thread(start, config(etcd))
        await asyncio.to_thread(register, etcd, *ups)
        await until(lambda: set(running.endpoints()) == {each.port for each in ups})
        await asyncio.to_thread(etcd.delete, f"{PREFIX}{ups[0].port}")
        await until(lambda: "removed" in running.endpoints()[ups[0].port]["ineligible"])
        await asyncio.to_thread(etcd.put, f"{PREFIX}bad", "nonsense")
        await until(lambda: source(running)["refused"].get("port") == 1)
        weighty = f'{{"address": "127.0.0.1:{ups[1].port}", "weight": 7, "zone": "here"}}'
        await asyncio.to_thread(etcd.put, f"{PREFIX}{ups[1].port}", weighty)
        await until(lambda: running.endpoints()[ups[1].port]["weight"] == 7)


@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_restarted(start: Start, etcd: Etcd, how: str) -> None:
    async with upstreams(*[echo] * 5) as ups, served(start, etcd, ups) as (running, _):
        await asyncio.to_thread(etcd.kill if how == "killed" else etcd.stop)
        await until(lambda: source(running)["error"])
        await lasts()
        await asyncio.to_thread(etcd.start)


async def test_restarted_with_nothing(start: Start, etcd: Etcd) -> None:
    """What it has forgotten is held, and let go of when it is registered again: nothing is lost half way."""
    async with upstreams(*[echo] * 5) as ups, served(start, etcd, ups) as (running, _):
        await asyncio.to_thread(etcd.kill)
        etcd.empty()
        await asyncio.to_thread(etcd.start)
        await until(lambda: source(running)["held"] == 4, within_s=RECOVERS_WITHIN_S)
        await lasts()
        for up in ups[:-1]:
            await asyncio.to_thread(register, etcd, up)
        await until(lambda: source(running)["held"] == 0, within_s=RECOVERS_WITHIN_S)


async def test_stopped_and_continued(start: Start, etcd: Etcd) -> None:
    async with upstreams(*[echo] * 5) as ups, served(start, etcd, ups, ", timeout: 1s") as (running, _):
        etcd.server.signal(signal.SIGSTOP)
        await until(lambda: "no full answer" in source(running)["error"], within_s=RECOVERS_WITHIN_S)
        await lasts()
        etcd.server.signal(signal.SIGCONT)


async def test_compacted_every_two_seconds_while_keys_change(start: Start, etcd: Etcd) -> None:
    """A thousand changes at least, a restart in their middle; at the end there is what was put last."""

    async def change(key: str, times: int) -> None:
        for count in range(times):
            etcd.put(key, f'{{"address": "127.0.0.1:{key.rpartition("/")[2]}", "weight": {1 + count % 9}}}')
            await asyncio.sleep(0)

    async def compact() -> None:
        while True:
            await asyncio.sleep(COMPACT_EVERY_S)
            revision = await asyncio.to_thread(etcd.put, "/elsewhere", "x")
            await asyncio.to_thread(etcd.compact, revision)

    async with upstreams(*[echo] * 5) as ups, served(start, etcd, ups) as (running, _):
        keys = [f"{PREFIX}{up.port}" for up in ups[:-1]]
        for restarted in (False, True):
            if restarted:
                await asyncio.to_thread(etcd.kill)
                await asyncio.to_thread(etcd.start)
            async with asyncio.TaskGroup() as group:
                compacting = group.create_task(compact(), name="compact")
                for _ in range(7):
                    for key in keys:
                        await change(key, 20)
                    await lasts(TROUBLE_S / 7)
                compacting.cancel()
        last = {up.port: 1 + up.port % 9 for up in ups[:-1]}
        for port, weight in last.items():
            value = f'{{"address": "127.0.0.1:{port}", "weight": {weight}}}'
            await asyncio.to_thread(etcd.put, f"{PREFIX}{port}", value)
        await until(
            lambda: {port: each["weight"] for port, each in running.endpoints().items()} == last,
            within_s=RECOVERS_WITHIN_S,
        )
