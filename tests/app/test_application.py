"""The program in one process: reloads that go wrong, and drains that meet them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from lbproxy.app import binds, changes
from lbproxy.app.application import Application
from lbproxy.config.load import Loaded, load_text
from lbproxy.domain.address import Address
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
