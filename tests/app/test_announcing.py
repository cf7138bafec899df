"""Which keepers there are after which reloads, and how they leave."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from lbproxy.admin.contract import Readiness
from lbproxy.app import announcing
from lbproxy.app.announcing import Announcer
from lbproxy.app.running import Running
from lbproxy.domain.address import ip_address
from lbproxy.registration.contract import Agent
from lbproxy.registration.options import RegistrationOptions, ServiceOptions
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.secrets import Secret
from tests.patience import WITHIN_S
from tests.registration.fake import FakeAgent

WEB = ServiceOptions("web", listener="web")
API = ServiceOptions("api", port=7000)
ID = "web-10.0.0.5-8080"
HERE = ConsulAccess("http://127.0.0.1:1")
THERE = ConsulAccess("http://127.0.0.1:2")


def options(*services: ServiceOptions, access: ConsulAccess = HERE) -> RegistrationOptions:
    return RegistrationOptions(services, access)


class Rig:
    """A announcer before fake agents, one for each access; `agents` in the order they were opened."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.agents: list[FakeAgent] = []
        self.let_go = 0
        listener = SimpleNamespace(
            addresses=[ip_address("10.0.0.5", 8080)], sockets={1: 1}, state="accepting"
        )
        running = SimpleNamespace(
            loop=asyncio.get_running_loop(), listeners={"web": listener}, draining=False, upstreams={}
        )
        self.announcer = Announcer(
            group, cast("Running", running), lambda: Readiness(()), self._open, random.Random(1)
        )

    def _open(self, _: ConsulAccess) -> tuple[Agent, Callable[[], Awaitable[None]]]:
        made = FakeAgent()
        self.agents.append(made)
        return made, self._close

    async def _close(self) -> None:
        self.let_go += 1

    @property
    def states(self) -> dict[str, str]:
        return {each.id: each.state for each in self.announcer.statuses}


@contextlib.asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        it = Rig(group)
        yield it
        await it.announcer.close()
    assert it.let_go == len(it.agents)


async def leave(it: Rig, hurry: bool = False) -> None:
    event = asyncio.Event()
    if hurry:
        event.set()
    await it.announcer.leave(event)


def registered(service_id: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("register", service_id), ("update", f"service:{service_id}")


async def test_without_a_configuration_nobody_is_asked() -> None:
    async with rig() as it:
        it.announcer.configure(None)
        await leave(it)
        assert it.agents == []
        assert it.states == {}


async def test_a_reload_adds_changes_and_takes_back() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        agent = it.agents[0]
        await agent.until(*registered(ID))
        it.announcer.configure(options(WEB, API))
        await agent.until(*registered("api-7000"))
        it.announcer.configure(options(ServiceOptions("web", listener="web", tags=("new",)), API))
        await agent.until(*registered(ID))
        assert agent.services[ID].tags == ("new",)
        it.announcer.configure(options(API))
        await agent.until(("deregister", ID))
        it.announcer.configure(None)
        await agent.until(("deregister", "api-7000"))
        assert len(it.agents) == 1


async def test_the_same_again_sends_nothing() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        await it.agents[0].until(*registered(ID))
        it.announcer.configure(options(WEB))
        await asyncio.sleep(0)
        assert it.agents[0].told == list(registered(ID))


async def test_another_token_keeps_what_is_registered() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        await it.agents[0].until(*registered(ID))
        changed = ServiceOptions("web", listener="web", tags=("new",))
        it.announcer.configure(options(changed, access=ConsulAccess(HERE.address, Secret(value="new"))))
        await it.agents[1].until(*registered(ID))
        assert it.agents[0].told == list(registered(ID))
        assert list(it.states) == [ID]


async def test_another_agent_is_told_and_the_old_one_is_left() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        await it.agents[0].until(*registered(ID))
        it.announcer.configure(options(WEB, access=THERE))
        await it.agents[0].until(("deregister", ID))
        await it.agents[1].until(*registered(ID))
        assert it.agents[0].services == {}
        assert list(it.agents[1].services) == [ID]


async def test_what_leaves_and_comes_back_is_not_registered_before_it_has_left() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        agent = it.agents[0]
        await agent.until(*registered(ID))
        agent.calm.clear()
        it.announcer.configure(options(API))
        await agent.until(("deregister", ID), ("register", "api-7000"))
        it.announcer.configure(options(WEB, API))
        assert agent.told.count(("register", ID)) == 1
        agent.calm.set()
        await agent.until(*registered(ID))
        assert ID in agent.services


async def test_leaving_is_bounded_and_final(monkeypatch: Any) -> None:
    monkeypatch.setattr(announcing, "LEAVE_WITHIN_S", 0.1)
    async with rig() as it:
        it.announcer.configure(options(WEB))
        agent = it.agents[0]
        await agent.until(*registered(ID))
        agent.calm.clear()
        await leave(it)
        assert it.states == {ID: "leaving"}
        it.announcer.configure(options(WEB))
        agent.calm.set()
        await leave(it)
        assert it.states == {}
        assert agent.services == {}


async def test_even_in_a_hurry_an_agent_that_is_well_is_told() -> None:
    async with rig() as it:
        it.announcer.configure(options(WEB))
        await it.agents[0].until(*registered(ID))
        await leave(it, hurry=True)
        assert it.agents[0].services == {}


async def test_two_services_of_one_id_are_one_and_an_unbound_one_is_none(caplog: Any) -> None:
    async with rig() as it:
        twin = ServiceOptions("web", address="10.0.0.5", port=8080)
        it.announcer.configure(options(WEB, twin, ServiceOptions("lost", listener="nowhere")))
        await it.agents[0].until(*registered(ID))
        assert list(it.states) == [ID]
    assert "two services have this id" in caplog.text
    assert "listener nowhere is not bound" in caplog.text


async def test_a_defect_in_a_keeper_is_logged_and_the_service_registered_all_the_same(
    caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(announcing, "RESTART", SimpleNamespace(wait_s=lambda *_: 0.01))
    async with rig() as it:
        it.announcer.configure(options(WEB))
        agent = it.agents[0]
        agent.error = ZeroDivisionError()
        await agent.until(("register", ID), ("register", ID))
        agent.recover()
        await agent.until(*registered(ID))
    assert f"registration {ID} failed" in caplog.text
