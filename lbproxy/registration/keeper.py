"""One registration kept: asks the state machine what is next, sends it, and says in the log what has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.registration.contract import Agent, Forgotten, Judge, KeeperStatus
from lbproxy.registration.definition import Definition
from lbproxy.registration.machine import (
    Deregister,
    Failure,
    Register,
    Registration,
    State,
    Step,
    Update,
)

logger = logging.getLogger("lbproxy.registration")

LOOK_S: Final = 0.2
"""How often the verdict is asked for; it is made of plain integers."""


class Keeper:
    """Owns nothing but its state: `run` is a task of the caller's, and ends when the service was deregistered.

    `agent` may be replaced between two steps (another token). What `run` has begun when it is cancelled stays as it is.
    """

    def __init__(
        self, definition: Definition, agent: Agent, judge: Judge, clock: Callable[[], float], rng: Random
    ) -> None:
        self.agent = agent
        self.judge = judge
        self.failures = 0
        self._clock = clock
        self._woken = asyncio.Event()
        self._error = ""
        self._said_status = ""
        self._registration = Registration(definition, judge(), rng)

    @property
    def id(self) -> str:
        return self._registration.definition.id

    @property
    def status(self) -> KeeperStatus:
        registration = self._registration
        definition, told = registration.definition, registration.told
        return KeeperStatus(
            service=definition.name,
            id=definition.id,
            address=definition.address,
            port=definition.port,
            state=str(registration.state),
            status=None if told is None else told.status,
            output=None if told is None else told.output,
            error=self._error,
            failures=self.failures,
        )

    def redefine(self, definition: Definition) -> None:
        """Another definition of the same id."""
        self._registration.redefine(definition)
        self._woken.set()

    def leave(self) -> None:
        """Deregister, as soon as a step that is on its way has ended. Idempotent."""
        self._registration.leave()
        self._woken.set()

    async def run(self) -> None:
        """Until the service is gone. Raises only what was not foreseen; run again, it goes on."""
        registration = self._registration
        while registration.state is not State.GONE:
            self._woken.clear()
            registration.judge(self.judge())
            now = self._clock()
            step, due = registration.next(now)
            if step is not None:
                await self._take(step)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(max(due - now, 0.0), LOOK_S)):
                        await self._woken.wait()

    async def _take(self, step: Step) -> None:
        try:
            match step:
                case Register(definition, verdict):
                    await self.agent.register(definition, verdict)
                case Update(check_id, verdict):
                    await self.agent.update(check_id, verdict)
                case Deregister(service_id):
                    await self.agent.deregister(service_id)
        except RegistryError as error:
            failure = Failure.FORGOTTEN if isinstance(error, Forgotten) else Failure.ERROR
            self._registration.failed(step, failure, self._clock(), error.retry_after_s)
            self._say_failed(step, failure, error)
        else:
            self._registration.done(step, self._clock())
            self._say_done(step)

    def _say_failed(self, step: Step, failure: Failure, error: RegistryError) -> None:
        if isinstance(step, Deregister) and failure is Failure.FORGOTTEN:
            logger.info("registration %s: the agent does not know it any more", self.id)
            return
        self.failures += 1
        text = str(error)
        if isinstance(step, Update) and failure is Failure.FORGOTTEN:
            self._said_status = ""
            logger.warning("registration %s: forgotten by the agent (%s): registering again", self.id, text)
        elif text != self._error:
            logger.warning("registration %s: %s failed: %s", self.id, _NAMES[type(step)], text)
        self._error = text

    def _say_done(self, step: Step) -> None:
        if self._error and not isinstance(step, Register):
            logger.info("registration %s: the agent is well again", self.id)
        self._error = ""
        match step:
            case Register(definition, verdict):
                where = f"{definition.address or 'the node'} port {definition.port}"
                why = f": {verdict.output}" if verdict.status != "passing" else ""
                logger.info(
                    "registration %s: registered as %s at %s, %s%s",
                    self.id,
                    definition.name,
                    where,
                    verdict.status,
                    why,
                )
                self._said_status = verdict.status
            case Update(_, verdict) if verdict.status != self._said_status:
                level = logging.WARNING if verdict.status == "critical" else logging.INFO
                logger.log(level, "registration %s: %s: %s", self.id, verdict.status, verdict.output)
                self._said_status = verdict.status
            case Deregister():
                logger.info("registration %s: deregistered", self.id)
            case _:
                pass


_NAMES: Final = {Register: "registering", Update: "updating the check", Deregister: "deregistering"}
