"""A proxy that follows a file of endpoints, whichever way the file is replaced, spoilt, lost and mended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.e2e.conftest import Start
from tests.e2e.peers import echo, exchange, until, upstreams
from tests.e2e.program import Program, lbproxy
from tests.e2e.traffic import all_served

CONFIG: Final = """
admin: {bind: '127.0.0.1:0'}
listeners: {in: {bind: '127.0.0.1:0', upstream: up}}
upstreams: {up: {discovery: {type: file, path: 'FILE', interval: INTERVAL}}}
"""
NEVER: Final = "5m"  # what is seen in a test was told by the kernel


def config(path: Path, interval: str = NEVER) -> str:
    return CONFIG.replace("FILE", str(path)).replace("INTERVAL", interval)


def listing(*ports: int) -> str:
    return "".join(f"- 127.0.0.1:{port}\n" for port in ports)


def replace(path: Path, content: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(content)
    beside.replace(path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def source(running: Program) -> dict[str, object]:
    (found,) = running.get("/api/v1/upstreams/up")["sources"]
    return dict(found)


def holds(running: Program) -> float:
    """How many answers have had removals put off."""
    return running.total("lbproxy_discovery_updates_total", upstream="up", result="held")


def eligible(running: Program) -> set[int]:
    return {port for port, each in running.endpoints().items() if each["eligible"]}


async def test_every_way_to_replace_the_file_is_followed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    async with upstreams(echo, echo, echo) as ups:
        one, two, three = (each.port for each in ups)
        replace(path, listing(one))
        running = start(config(path))
        await until(lambda: eligible(running) == {one})
        replace(path, listing(one, two))  # a rename
        await until(lambda: eligible(running) == {one, two})
        path.write_text(listing(one, two, three))  # in place
        await until(lambda: eligible(running) == {one, two, three})
        path.unlink()  # an editor that makes it anew
        path.write_text(listing(two, three))
        await until(lambda: eligible(running) == {two, three})
        folder = tmp_path / "..v2"  # a link to another folder
        folder.mkdir()
        (folder / "endpoints.yaml").write_text(
            f"endpoints: [{{address: '127.0.0.1:{one}', weight: 3}}, '127.0.0.1:{two}']"
        )
        (tmp_path / "link").symlink_to(folder / "endpoints.yaml")
        (tmp_path / "link").rename(path)
        await until(lambda: eligible(running) == {one, two})
        assert running.endpoints()[one]["weight"] == 3
        assert source(running)["error"] == ""
        assert await exchange(running.address()) == b"x"


async def test_a_config_map_is_followed(start: Start, tmp_path: Path) -> None:
    async with upstreams(echo, echo) as ups:
        one, two = (each.port for each in ups)
        for version, ports in (("..v1", [one]), ("..v2", [one, two]), ("..v3", [two])):
            (tmp_path / version).mkdir()
            (tmp_path / version / "endpoints.yaml").write_text(listing(*ports))
        (tmp_path / "..data").symlink_to("..v1")
        (tmp_path / "endpoints.yaml").symlink_to("..data/endpoints.yaml")
        running = start(config(tmp_path / "endpoints.yaml"))
        await until(lambda: eligible(running) == {one})
        for version, expected in (("..v2", {one, two}), ("..v3", {two})):
            (tmp_path / "..data_tmp").symlink_to(version)
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await until(lambda expected=expected: eligible(running) == expected)  # type: ignore[misc]


async def test_no_trouble_of_the_file_costs_a_connection_or_an_endpoint(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    async with upstreams(echo, echo, echo) as ups:
        ports = [each.port for each in ups]
        good = listing(*ports)
        replace(path, good)
        running = start(config(path, "1s"))
        await until(lambda: eligible(running) == set(ports))
        trouble: dict[str, Callable[[], object]] = {
            "garbage": lambda: replace(path, "\x00\x01\x02"),
            "half a mapping": lambda: replace(path, "- {address: "),
            "no text": lambda: path.write_text(""),
            "HTML": lambda: replace(path, "<html>sign in</html>"),
            "gone": path.unlink,
            "a folder": lambda: become_a_folder(path),
        }
        async with all_served(running) as traffic:
            for name, happen in trouble.items():
                happen()
                await until(lambda: source(running)["error"])
                assert f"{path}:" in str(source(running)["error"]), name
                await traffic.goes_on()
                assert eligible(running) == set(ports), name
                if path.is_dir():
                    path.rmdir()
                replace(path, good)
                mended = time.monotonic()
                await until(lambda: not source(running)["error"])
                assert time.monotonic() - mended < 20.0, name
            replace(path, "[]\n")  # no error, and yet nobody removes everybody without a second look
            await until(lambda: source(running)["held"] == len(ports))
            await traffic.goes_on()
            replace(path, good)
            await until(lambda: source(running)["held"] == 0)


async def test_a_bad_entry_is_refused_by_itself(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    async with upstreams(echo) as (one,):
        path.write_text(f'["127.0.0.1:{one.port}", "127.0.0.1:0", "169.254.169.254:80", "nonsense"]')
        running = start(config(path))
        await until(lambda: eligible(running) == {one.port})
        refused = source(running)["refused"]
        assert isinstance(refused, dict)
        assert {reason: count for reason, count in refused.items() if count} == {"port": 2, "link_local": 1}


async def test_a_file_may_not_lead_clients_to_the_admin_interface(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    async with upstreams(echo) as (one,):
        replace(path, listing(one.port))
        running = start(config(path))
        await until(lambda: eligible(running) == {one.port})
        admin = int(running.admin.rpartition(":")[2])
        replace(path, listing(one.port, admin))
        await until(lambda: source(running)["results"]["unchanged"] >= 1)  # type: ignore[index]
        assert source(running)["refused"]["own_listener"] == 1  # type: ignore[index]
        assert eligible(running) == {one.port}


async def test_an_operator_ends_a_hold_with_one_command(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    async with upstreams(echo, echo, echo) as ups:
        one, two, three = (each.port for each in ups)
        replace(path, listing(one, two, three))
        running = start(config(path))
        await until(lambda: eligible(running) == {one, two, three})

        def obey(*words: str) -> tuple[int, str]:
            done = lbproxy("obey", "up", *words, "--admin", running.admin)
            return done.returncode, done.stdout + done.stderr

        code, said = await asyncio.to_thread(obey, "file")
        assert (code, said) == (
            1,
            "lbproxy: 409 Conflict: upstream up: file holds nothing: its last answer is in force\n",
        )
        path.unlink()
        await until(lambda: source(running)["error"])
        replace(path, listing(one))
        await until(lambda: source(running)["held"] == 2, within_s=40)
        assert "after trouble" in str(source(running)["held_why"])
        assert await asyncio.to_thread(obey) == (0, "up file: 2 endpoints are let go\n")
        assert eligible(running) == {one}
        assert running.total("lbproxy_discovery_updates_total", upstream="up", result="confirmed") == 1
        assert running.total("lbproxy_discovery_held", upstream="up") == 0
        assert running.said("2 endpoints are let go: an operator has the last answer obeyed")
        assert running.said("POST /api/v1/upstreams/up/sources/file/obey from 127.0.0.1")
        before = holds(running)
        replace(path, "[]")  # it was no licence
        await until(lambda: holds(running) > before)
