"""A start while every registry is down: what was last known, kept on disk, serves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from tests.discovery.http.scripted import reply, scripted
from tests.e2e.conftest import Start
from tests.e2e.peers import echo, exchange, until, upstreams
from tests.e2e.program import Program, lbproxy
from tests.servers.consul import Consul
from tests.servers.ports import ReservedPort

KINDS: Final = ("consul", "http", "file")


def config(consul: str, url: str, file: Path, state: Path) -> str:
    sources = {
        "consul": f"{{type: consul, address: '{consul}', service: web, wait: 1s}}",
        "http": f"{{type: http, url: '{url}', interval: 100ms}}",
        "file": f"{{type: file, path: '{file}'}}",
    }
    listeners = "".join(f"  {kind}: {{bind: '127.0.0.1:0', upstream: {kind}}}\n" for kind in KINDS)
    served = "".join(f"  {kind}: {{discovery: {sources[kind]}}}\n" for kind in KINDS)
    return (
        f"runtime: {{state_dir: '{state}'}}\n"
        "admin: {bind: '127.0.0.1:0'}\n"
        "log: {access: {enabled: false}}\n"
        f"listeners:\n{listeners}upstreams:\n{served}"
    )


def source(running: Program, kind: str) -> dict[str, object]:
    (found,) = running.get(f"/api/v1/upstreams/{kind}")["sources"]
    return dict(found)


async def test_with_every_registry_down_the_state_on_disk_serves(
    start: Start, consul: Consul, tmp_path: Path
) -> None:
    file, state = tmp_path / "endpoints.json", tmp_path / "state"
    async with upstreams(echo, echo, echo) as ups:
        await asyncio.to_thread(consul.register, ups[0].port)
        file.write_text(json.dumps([f"127.0.0.1:{ups[2].port}"]))
        async with scripted(reply(json.dumps([f"127.0.0.1:{ups[1].port}"]))) as server:
            text = config(consul.address, f"http://127.0.0.1:{server.port}/", file, state)
            before = start(text)
            await until(lambda: all(before.endpoints(kind) for kind in KINDS))
            kept = {f"{kind}.{kind}.json" for kind in KINDS}
            await until(lambda: {each.name for each in state.glob("discovery/*.json")} == kept)
            assert await asyncio.to_thread(before.stop) == 0
        await asyncio.to_thread(consul.kill)
        file.unlink()

        after = await asyncio.to_thread(start, text)
        for kind, up in zip(KINDS, ups, strict=True):
            assert await exchange(after.address(kind)) == b"x"
            assert up.accepted == 1
            await until(lambda kind=kind: source(after, kind)["error"])  # type: ignore[misc]
            told = source(after, kind)
            assert (told["unverified"], told["age_s"]) == (True, None)
        ready = after.get("/readyz")
        assert ready["ready"]
        assert len([each for each in ready["warnings"] if "last known" in each]) == len(KINDS)
        file.write_text(json.dumps([f"127.0.0.1:{ups[2].port}"]))
        await until(lambda: not source(after, "file")["unverified"])


async def test_with_every_registry_down_and_nothing_on_disk_it_is_said_what_is_missing(
    start: Start, tmp_path: Path
) -> None:
    with ReservedPort() as port, ReservedPort() as other:
        text = config(
            f"http://127.0.0.1:{port.number}",
            f"http://127.0.0.1:{other.number}/x",
            tmp_path / "absent",
            tmp_path,
        )
        running = await asyncio.to_thread(start, text)
        await until(lambda: all(source(running, kind)["error"] for kind in KINDS))
        missing = {
            "consul": f"consul http://127.0.0.1:{port.number}/v1/health/service/web: cannot connect: Connection refused",
            "http": f"http://127.0.0.1:{other.number}/x: cannot connect: Connection refused",
            "file": f"{tmp_path / 'absent'}: No such file or directory",
        }
        code, body = running.ask("GET", "/readyz")
        ready = json.loads(body)
        status = (await asyncio.to_thread(lbproxy, "status", "--admin", running.admin)).stdout
        assert code == 503
        for kind, what in missing.items():
            assert f"upstream {kind} has no usable endpoint" in ready["reasons"]
            assert f"upstream {kind}: {kind} gives no answer, and is asked again: {what}" in ready["warnings"]
            assert f"  source {kind}: waiting: no answer yet, " in status
            assert f"    now: {what}" in status
            assert running.said(f"upstream {kind}: {kind}: {what}; it has no endpoint yet; next try in ")
