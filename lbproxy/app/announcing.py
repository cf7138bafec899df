"""Where this process makes itself known: a keeper for each configured service, brought in step with every reload, gone at the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy.admin.contract import Readiness
from lbproxy.app.running import Running
from lbproxy.domain.address import Address
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.strategy import Random
from lbproxy.registration.contract import Agent, KeeperStatus
from lbproxy.registration.definition import Definition, Verdict, define, judge
from lbproxy.registration.keeper import Keeper
from lbproxy.registration.options import RegistrationOptions, ServiceOptions
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient

logger = logging.getLogger("lbproxy.registration")

LEAVE_WITHIN_S: Final = 2.0
"""How long a drain waits until every service is deregistered; the keepers go on trying until the process ends."""

HURRIED_S: Final = 0.25
"""The same in a hurry: an agent that is well takes a millisecond, and who is not deregistered is dialled until the TTL runs out."""

RESTART: Final = Backoff(base_s=1.0, cap_s=30.0, floor_s=0.5)

Opener = Callable[[ConsulAccess], tuple[Agent, Callable[[], Awaitable[None]]]]
"""Gives the agent behind an access, and what lets go of it."""

_Place = tuple[object, ...]


def prepare(options: RegistrationOptions | None) -> None:
    """Import what registering needs, which takes a tenth of a second: to be called in a reload's thread."""
    if options is not None:
        import lbproxy.registration.consul  # noqa: F401, PLC0415 - needed by few


def consul_agents(http: HttpClient) -> Opener:
    """Agents over the process's HTTP client."""

    def open_agent(access: ConsulAccess) -> tuple[Agent, Callable[[], Awaitable[None]]]:
        # Slow to import, and needed by few; a reload has imported them in its thread.
        from lbproxy.registration.consul import ConsulAgent  # noqa: PLC0415
        from lbproxy.wire.consul import ConsulClient  # noqa: PLC0415

        client = ConsulClient(access, http)
        return ConsulAgent(client), client.close

    return open_agent


@dataclass(frozen=True, slots=True)
class _Kept:
    keeper: Keeper
    task: asyncio.Task[None]
    place: _Place


class Announcer:
    """Owns the keepers' tasks, in `group`, and the agent. Everything is called on the event loop.

    A service is known by its id at an agent: as long as both stay, its keeper stays, whatever else changes.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        running: Running,
        readiness: Callable[[], Readiness],
        open_agent: Opener,
        rng: Random,
    ) -> None:
        self._group = group
        self._running = running
        self._readiness = readiness
        self._open_agent = open_agent
        self._rng = rng
        self._access: ConsulAccess | None = None
        self._agent: Agent | None = None
        self._let_go: list[Callable[[], Awaitable[None]]] = []
        self._kept: dict[str, _Kept] = {}
        self._leaving: list[_Kept] = []
        self._left = False

    @property
    def statuses(self) -> list[KeeperStatus]:
        """Of every service that is configured, or not yet gone."""
        return [each.keeper.status for each in [*self._kept.values(), *self._leaving] if not each.task.done()]

    def configure(self, options: RegistrationOptions | None) -> None:
        """Register what is configured now, deregister what is no longer. Without effect once left."""
        if self._left:
            return
        self._leaving = [each for each in self._leaving if not each.task.done()]
        wanted: dict[str, tuple[Definition, ServiceOptions]] = {}
        if options is not None:
            self._use(options.consul)
            for service in options.services:
                definition = define(service, self._bound(service))
                if definition is None:
                    logger.error("registration %s: listener %s is not bound", service.name, service.listener)
                elif definition.id in wanted:
                    logger.error("registration %s: two services have this id; the first stays", definition.id)
                else:
                    wanted[definition.id] = definition, service
        for service_id in [each for each in self._kept if each not in wanted]:
            self._dismiss(service_id)
        for service_id, (definition, service) in wanted.items():
            self._keep(service_id, definition, service)

    def _use(self, access: ConsulAccess) -> None:
        """Another place: everything leaves the old one. The same place, reached otherwise: the keepers go on with that."""
        if access == self._access:
            return
        if self._access is not None and _place(access) != _place(self._access):
            for service_id in list(self._kept):
                self._dismiss(service_id)
        self._access = access
        self._agent, let_go = self._open_agent(access)
        self._let_go.append(let_go)
        for kept in self._kept.values():
            kept.keeper.agent = self._agent

    def _keep(self, service_id: str, definition: Definition, service: ServiceOptions) -> None:
        assert self._agent is not None
        assert self._access is not None
        judged = self._judge(service)
        kept = self._kept.get(service_id)
        if kept is not None:
            kept.keeper.judge = judged
            kept.keeper.redefine(definition)
            return
        keeper = Keeper(definition, self._agent, judged, self._running.loop.time, self._rng)
        place = _place(self._access)
        before = [each.task for each in self._leaving if (each.keeper.id, each.place) == (service_id, place)]
        task = self._group.create_task(self._run(keeper, before), name=f"registration {service_id}")
        self._kept[service_id] = _Kept(keeper, task, place)

    def _dismiss(self, service_id: str) -> None:
        kept = self._kept.pop(service_id)
        kept.keeper.leave()
        self._leaving.append(kept)

    async def _run(self, keeper: Keeper, before: list[asyncio.Task[None]]) -> None:
        """The wall around a keeper: a defect is logged and the keeper run again. `before` has the id, and must have left it."""
        if before:
            await asyncio.wait(before)
        attempt = 0
        while True:
            try:
                await keeper.run()
            except Exception:
                logger.exception("registration %s failed", keeper.id)
                await asyncio.sleep(RESTART.wait_s(attempt, self._rng))
                attempt += 1
            else:
                return

    def _bound(self, service: ServiceOptions) -> Sequence[Address]:
        listener = None if service.listener is None else self._running.listeners.get(service.listener)
        return () if listener is None else listener.addresses

    def _judge(self, service: ServiceOptions) -> Callable[[], Verdict]:
        def process() -> Verdict:
            found = self._readiness()
            return judge(service, found.reasons, found.warnings)

        def upstream() -> Verdict:
            return judge(service, *self._of_listener(str(service.listener)))

        return process if service.ready_when == "process" else upstream

    def _of_listener(self, name: str) -> tuple[list[str], list[str]]:
        """Reasons and warnings of one listener and its upstream."""
        running = self._running
        reasons = ["draining"] if running.draining else []
        listener = running.listeners.get(name)
        if listener is None or not listener.sockets:
            return [*reasons, f"listener {name} is not bound"], []
        upstream = running.upstreams[listener.options.upstream]
        if not upstream.pool.usable:
            reasons.append(f"upstream {upstream.name} has no usable endpoint")
        paused = listener.state == "paused"
        return reasons, [f"listener {name} is at a limit and does not accept"] if paused else []

    async def leave(self, hurry: asyncio.Event) -> None:
        """Deregister everything; wait for that `LEAVE_WITHIN_S` at most, in a `hurry` `HURRIED_S`. Idempotent."""
        self._left = True
        for service_id in list(self._kept):
            self._dismiss(service_id)
        tasks = [each.task for each in self._leaving if not each.task.done()]
        if not tasks:
            return
        async with asyncio.TaskGroup() as group:
            hurried = group.create_task(hurry.wait(), name="registration hurry")
            gone = group.create_task(asyncio.wait(tasks), name="registration gone")
            await asyncio.wait([hurried, gone], timeout=LEAVE_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done():
                await asyncio.wait([gone], timeout=HURRIED_S)
            hurried.cancel()
            gone.cancel()
        for each in self._leaving:
            if not each.task.done():
                why = each.keeper.status.error or "no answer"
                logger.warning("registration %s: not yet deregistered: %s", each.keeper.id, why)

    async def close(self) -> None:
        """End every task, wherever it is, and let go of the agent."""
        tasks = [each.task for each in [*self._kept.values(), *self._leaving]]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for let_go in self._let_go:
            await let_go()
        self._let_go.clear()


def _place(access: ConsulAccess) -> _Place:
    return access.address, access.datacenter, access.namespace, access.partition
