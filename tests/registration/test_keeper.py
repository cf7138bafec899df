"""A keeper: what it sends, says and survives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import pytest

from lbproxy.registration.definition import Definition, Verdict
from lbproxy.registration.keeper import Keeper
from tests.patience import WITHIN_S
from tests.registration.fake import FakeAgent

WEB = Definition("web-1", "web", "10.0.0.5", 8080, ttl_s=3.0)
WELL = Verdict("passing", "ready")
ILL = Verdict("critical", "no endpoint")
REGISTERED = (("register", "web-1"), ("update", "service:web-1"))
GONE = ("deregister", "web-1")


class Kept:
    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.verdict = WELL
        loop = asyncio.get_running_loop()
        self.keeper = Keeper(WEB, self.agent, lambda: self.verdict, loop.time, random.Random(1))


@contextlib.asynccontextmanager
async def kept() -> AsyncIterator[Kept]:
    """A keeper that runs; at the end it leaves, and must come to its end by itself."""
    it = Kept()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(it.keeper.run(), name="keeper")
        yield it
        it.agent.recover()
        it.agent.calm.set()
        it.keeper.leave()


async def test_it_registers_tells_and_leaves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with kept() as it:
        await it.agent.until(*REGISTERED)
        it.verdict = ILL
        await it.agent.until(("update", "service:web-1"), ("update", "service:web-1"))
        assert it.agent.said == {"service:web-1": ILL}
    assert it.agent.services == {}
    assert it.keeper.status.state == "gone"
    assert [record.message for record in caplog.records] == [
        "registration web-1: registered as web at 10.0.0.5 port 8080, passing",
        "registration web-1: critical: no endpoint",
        "registration web-1: deregistered",
    ]


async def test_the_same_failure_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with kept() as it:
        await it.agent.until(*REGISTERED)
        it.agent.fail("no route")
        before = len(it.agent.told)
        async with asyncio.timeout(WITHIN_S):
            while len(it.agent.told) < before + 3:
                it.agent.news.clear()
                await it.agent.news.wait()
        assert it.keeper.status.error == "no route"
        assert it.keeper.status.failures >= 2
        assert it.keeper.status.state == "registered"
        it.agent.recover()
        await it.agent.until(("update", "service:web-1"))
    said = [record.message for record in caplog.records]
    assert said.count("registration web-1: updating the check failed: no route") == 1


async def test_leaving_waits_for_the_step_on_its_way_and_for_nothing_else() -> None:
    async with kept() as it:
        it.agent.calm.clear()
        await it.agent.until(("register", "web-1"))
        it.keeper.leave()
        it.agent.calm.set()
        await it.agent.until(("register", "web-1"), GONE)


async def test_another_agent_takes_over_between_two_steps() -> None:
    async with kept() as it:
        await it.agent.until(*REGISTERED)
        other = FakeAgent()
        it.keeper.agent = other
        it.keeper.redefine(Definition("web-1", "web", "10.0.0.5", 8080, ("new",), ttl_s=3.0))
        await other.until(*REGISTERED)


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_at_any_point_it_leaves_nothing_behind(turns: int) -> None:
    it = Kept()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(it.keeper.run(), name="keeper")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_a_defect_ends_the_run_and_the_next_one_goes_on() -> None:
    it = Kept()
    it.agent.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await it.keeper.run()
    it.agent.recover()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(it.keeper.run(), name="keeper")
        await it.agent.until(*REGISTERED)
        it.keeper.leave()


async def test_why_it_begins_critical_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with kept() as it:
        it.verdict = ILL
        await it.agent.until(*REGISTERED)
    assert (
        caplog.records[0].message
        == "registration web-1: registered as web at 10.0.0.5 port 8080, critical: no endpoint"
    )
