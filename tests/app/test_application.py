"""The program in one process: reloads that go wrong, and drains that meet them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbproxy.app import binds, changes
from lbproxy.app.application import Application
from lbproxy.config.load import Loaded, load_text
from lbproxy.discovery.snapshots import Saved, Snapshots
from lbproxy.domain.address import Address, parse_address
from lbproxy.domain.membership import Member, Membership
from lbproxy.wire import state
from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort

CONFIG = """
runtime: {{drain_timeout: 0s}}
admin: {{bind: "127.0.0.1:0"}}
log: {{access: {{enabled: false}}}}
listeners:
  in: {{bind: "127.0.0.1:{listen}", upstream: up}}
upstreams:
  up: {{endpoints: ["127.0.0.1:{endpoint}"]}}
"""


@pytest.fixture
def reserved() -> Iterator[ReservedPort]:
    with ReservedPort() as port:
        yield port


another_reserved = reserved


class Running:
    """An application whose configuration text the test may change, and whose rereading it may hold up or break."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.on_read: Callable[[], None] = lambda: None
        self.application = Application(self._read(), self._read, {})

    def _read(self) -> Loaded:
        if threading.current_thread() is not threading.main_thread():
            self.on_read()
        return load_text(self.text, "test", {})

    @property
    def reloads(self) -> dict[str, int]:
        return self.application.running.reloads

    async def reload(self, result: str) -> None:
        """As SIGHUP asks for it; wait until it has come to this result."""
        before = self.reloads[result]
        self.application._hangup.set()
        async with asyncio.timeout(WITHIN_S):
            while self.reloads[result] == before:  # noqa: ASYNC110 - counters tell nobody
                await asyncio.sleep(0)

    @property
    def eligible(self) -> list[str]:
        return [
            e.label for e in self.application.running.upstreams["up"].pool.endpoints() if not e.ineligible
        ]


@contextlib.asynccontextmanager
async def running(text: str) -> AsyncIterator[Running]:
    it = Running(text)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(it.application.run(), name="application")
        await it.application.started.wait()
        yield it
        it.application.stop()
        await serving


async def test_a_reload_that_breaks_in_any_way_is_told_and_the_program_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_entry() -> None:
        raise PermissionError(13, "Permission denied")

    async with running(CONFIG.format(listen=0, endpoint=1)) as it:
        it.on_read = no_entry
        await it.reload("failed")
        it.on_read = lambda: None
        await it.reload("unchanged")
        assert it.eligible == ["127.0.0.1:1"]


async def test_a_change_that_a_defect_broke_off_is_made_by_the_next_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    async with running(CONFIG.format(listen=0, endpoint=1)) as it:
        listener = it.application.running.listeners["in"]
        it.text = it.text.replace("upstream: up}", "upstream: up, max_connections: 7}")
        with monkeypatch.context() as context:
            context.setattr(changes, "_apply_listener", broken)
            await it.reload("failed")
        assert listener.options.max_connections != 7
        await it.reload("applied")
        assert listener.options.max_connections == 7
        await it.reload("unchanged")


async def test_who_holds_a_taken_port_is_looked_up_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked: list[threading.Thread] = []

    def holder(_: Address) -> str:
        looked.append(threading.current_thread())
        return "somebody"

    monkeypatch.setattr(binds, "port_holder", holder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(CONFIG.format(listen=0, endpoint=1)) as it:
            it.text = CONFIG.format(listen=port, endpoint=1)
            await it.reload("failed")
    assert (
        f"cannot bind 127.0.0.1:{port}: Address already in use (held by somebody)" in capsys.readouterr().err
    )
    assert looked
    assert threading.main_thread() not in looked


async def test_wildcard_that_was_bound_for_ipv6_alone_says_so_when_the_ipv4_one_leaves(
    capsys: pytest.CaptureFixture[str], reserved: ReservedPort
) -> None:
    port = reserved.number
    alone = CONFIG.replace('"127.0.0.1:{listen}"', f'"[::]:{port}"').format(endpoint=1)
    both = alone.replace(f'"[::]:{port}"', f'["0.0.0.0:{port}", "[::]:{port}"]')
    half = f"listener in: [::]:{port} takes IPv6 alone until a restart"
    async with running(both) as it:
        it.text = alone
        await it.reload("applied")
        assert half in capsys.readouterr().err
        it.text = both
        await it.reload("applied")
        assert half not in capsys.readouterr().err


async def test_a_reload_on_its_way_does_not_reopen_what_a_drain_has_closed() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        reading.set()
        go_on.wait(WITHIN_S)

    async with running(CONFIG.format(listen=0, endpoint=1)) as it:
        it.on_read = slowly
        it.text = CONFIG.format(listen=0, endpoint=2)
        it.application._hangup.set()
        await asyncio.to_thread(reading.wait, WITHIN_S)
        it.application.stop()
        async with asyncio.timeout(WITHIN_S):
            while not it.application.running.draining:  # noqa: ASYNC110
                await asyncio.sleep(0)
        go_on.set()
    assert it.reloads["applied"] == 0
    assert it.application.running.listeners["in"].state == "draining"


async def test_loops_are_judged_by_the_listeners_that_a_reload_leaves_behind(
    reserved: ReservedPort, another_reserved: ReservedPort
) -> None:
    one, two = reserved.number, another_reserved.number
    async with running(CONFIG.format(listen=one, endpoint=1)) as it:
        it.text = CONFIG.format(listen=two, endpoint=one)
        await it.reload("applied")
        assert it.eligible == [f"127.0.0.1:{one}"]


async def test_what_only_a_restart_changes_stays_and_is_said_each_time() -> None:
    async with running(CONFIG.format(listen=0, endpoint=1)) as it:
        it.text = CONFIG.format(listen=0, endpoint=2).replace("0s", "9s")
        await it.reload("applied")
        await it.reload("unchanged")
        loaded = it.application.running.loaded
        assert loaded.configuration.runtime.drain_timeout_s == 0
        assert loaded.document["runtime"]["drain_timeout"] == "0s"
        assert it.eligible == ["127.0.0.1:2"]


async def test_only_a_second_signal_hurries_a_drain() -> None:
    application = Application(load_text(CONFIG.format(listen=0, endpoint=1), "test", {}), lambda: None, {})  # type: ignore[arg-type,return-value]
    application.stop(deadline_s=5.0)
    application._signalled()
    assert not application._hurry.is_set()
    application._signalled()
    assert application._hurry.is_set()
    assert application._drain_deadline_s == 5.0


REMEMBERING = CONFIG.replace("drain_timeout: 0s", "drain_timeout: 0s, state_dir: '{state}'")
FOLLOWING = "  {name}: {{discovery: {{type: file, path: '{path}', interval: {interval}}}}}\n"


def remember(state: Path, text: str, upstream: str, *addresses: str) -> None:
    """Leave what an earlier run knew of the upstream's one source."""
    (source,) = load_text(text, "test", {}).configuration.upstreams[upstream].discovery
    members = tuple(Member(parse_address(each)) for each in addresses)
    Snapshots(state / "discovery").save(
        upstream, source.name, Saved(Membership(members), time.time(), source.subject)
    )


def in_force(it: Running, upstream: str) -> list[str]:
    pool = it.application.running.upstreams[upstream].pool
    return sorted(each.label for each in pool.endpoints() if not each.ineligible)


async def test_what_a_new_upstream_remembers_is_read_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    parse = state.read

    def read(*given: Any) -> Any:
        readers.append(threading.current_thread())
        return parse(*given)

    text = REMEMBERING.format(listen=0, endpoint=1, state=tmp_path)
    async with running(text) as it:
        it.text = text + FOLLOWING.format(name="new", path=tmp_path / "absent", interval="5m")
        remember(tmp_path, it.text, "new", "127.0.0.1:7", "127.0.0.1:8")
        monkeypatch.setattr(state, "read", read)
        await it.reload("applied")
        assert in_force(it, "new") == ["127.0.0.1:7", "127.0.0.1:8"]
    assert readers
    assert threading.main_thread() not in readers


@pytest.mark.timeout(60)  # a back-off or two
async def test_an_answer_that_comes_while_the_disk_is_read_stands_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source had nothing in force when a reload changed it and began to read; by the time that it is replaced, it has."""
    path = tmp_path / "endpoints.yaml"
    recall = Snapshots.recall
    answered = threading.Event()

    def slow(snapshots: Snapshots, wanted: Any) -> Any:
        assert ("new", "file") in wanted
        found = recall(snapshots, wanted)
        path.write_text("[127.0.0.1:9]")
        assert answered.wait(30)
        return found

    text = REMEMBERING.format(listen=0, endpoint=1, state=tmp_path / "state")
    async with running(text + FOLLOWING.format(name="new", path=path, interval="100ms")) as it:
        it.text = text + FOLLOWING.format(name="new", path=path, interval="200ms")
        remember(tmp_path / "state", it.text, "new", "127.0.0.1:7", "127.0.0.1:8")
        monkeypatch.setattr(Snapshots, "recall", slow)
        async with asyncio.TaskGroup() as group:
            reloading = group.create_task(it.reload("applied"), name="reload")
            async with asyncio.timeout(30):
                while not in_force(it, "new"):  # noqa: ASYNC110 - pools tell nobody
                    await asyncio.sleep(0)
            assert not reloading.done()
            answered.set()
        assert in_force(it, "new") == ["127.0.0.1:9"]
