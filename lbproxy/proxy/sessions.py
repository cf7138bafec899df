"""The sessions that are alive, and what each is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.session import MOVES, EndReason, State
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Lease
from lbproxy.proxy.routing import Route
from lbproxy.relay.contract import Socket

_ROUTED: Final = State.ROUTED  # a global is read faster than an enum's member


class Holder(Protocol):
    """What a session gives its place back to when it ends: its listener."""

    reset_on_failure: bool

    def session_ended(self) -> None: ...

    def turned_away_full(self) -> None: ...


class Session:
    """One client, from admission to its end. `client` is held only between two dials; else the relay owns the socket."""

    __slots__ = (
        "attempts",
        "client",
        "client_host",
        "client_port",
        "context",
        "dialled_from",
        "doomed",
        "failed_last",
        "id",
        "lease",
        "owner",
        "pause",
        "route",
        "started",
        "state",
    )

    def __init__(
        self, id_: int, owner: Holder, route: Route, client_host: str, client_port: int, context: Context
    ) -> None:
        self.id = id_
        self.owner = owner
        self.route = route
        self.client_host = client_host
        self.client_port = client_port
        self.context = context
        self.started = context.now
        self.state = _ROUTED
        self.attempts = 0
        self.failed_last = ""
        self.lease: Lease | None = None
        self.client: Socket | None = None
        self.doomed: EndReason | None = None  # aborted while an event of the relay was on its way
        self.pause: asyncio.TimerHandle | None = None
        # Our end of an original_dst dial, for the loop check.
        self.dialled_from: tuple[str, int] | None = None

    @property
    def last_endpoint(self) -> str:
        """The endpoint in use, else the last one that failed, else ""."""
        if self.lease is not None:
            return self.lease.endpoint.label
        return self.failed_last

    def move(self, state: State) -> None:
        """Follow the table of domain/session.py; a move it does not list is a defect here."""
        if state not in MOVES[self.state]:
            raise AssertionError(f"session {self.id}: {self.state} -> {state}")
        self.state = state


class SessionTable:
    """Live sessions by number. Numbers grow for ever, so iteration is in order of arrival."""

    __slots__ = ("_drained", "_last", "_live", "get")

    def __init__(self) -> None:
        self._live: dict[int, Session] = {}
        self._last = 0
        self._drained: asyncio.Event | None = None
        self.get: Callable[[int], Session | None] = self._live.get

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._live.values())

    def next_id(self) -> int:
        self._last += 1
        return self._last

    def add(self, session: Session) -> None:
        self._live[session.id] = session

    def remove(self, session: Session) -> bool:
        """False if it was not here any more."""
        if self._live.pop(session.id, None) is None:
            return False
        if self._drained is not None and not self._live:
            self._drained.set()
        return True

    def of_endpoint(self, endpoint: Endpoint) -> list[Session]:
        return [s for s in self._live.values() if s.lease is not None and s.lease.endpoint is endpoint]

    async def wait_empty(self) -> None:
        """Return as soon as no session is left."""
        if self._live:
            self._drained = asyncio.Event()
            await self._drained.wait()
            self._drained = None
