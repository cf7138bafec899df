"""What a registration is carried out with, and how it is seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lbproxy.domain.errors import RegistryError
from lbproxy.registration.definition import Definition, Verdict

Judge = Callable[[], Verdict]
"""What the check is to say now. Synchronous, quick, called a few times a second."""


class Forgotten(RegistryError):
    """The agent is well, and knows no such service or check."""


class Agent(Protocol):
    """The registry's agent. Every call ends within a few seconds and raises RegistryError when it was not acknowledged; the agent may
    have carried it out nevertheless. May be cancelled at any point."""

    async def register(self, definition: Definition, verdict: Verdict) -> None: ...

    async def update(self, check_id: str, verdict: Verdict) -> None:
        """Raises Forgotten for a check that the agent does not know."""

    async def deregister(self, service_id: str) -> None:
        """Raises Forgotten for a service that the agent does not know."""


@dataclass(frozen=True, slots=True)
class KeeperStatus:
    """`state` is `absent`, `registered`, `leaving` or `gone`; `status` and `output` are what the agent was last told, None without an
    acknowledged update. `error` is why the last step failed, "" when it did not."""

    service: str
    id: str
    address: str
    port: int
    state: str
    status: str | None
    output: str | None
    error: str
    failures: int
