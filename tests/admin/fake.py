"""A program for the admin interface to talk to: two endpoints, three sessions, and a list of what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lbproxy.admin.contract import NotFound, Readiness, Refused, Registration, Unacceptable
from lbproxy.admin.options import AdminOptions
from lbproxy.admin.server import AdminServer
from lbproxy.admin.shapes import (
    EndpointStatus,
    LeaseStatus,
    ListenerStatus,
    ObeyResult,
    RegistrationStatus,
    ReloadResult,
    SessionStatus,
    SourceStatus,
    UpstreamDetail,
    UpstreamStatus,
)
from lbproxy.domain.address import Address, parse_address
from lbproxy.domain.membership import MAX_WEIGHT

ENDPOINTS = ("10.0.0.1:80", "unix:/run/x.sock")
PAGE = b"# HELP a b\n# TYPE a gauge\na 1\n"


def endpoint(address: str, *, drained: bool = False, weight: int | None = None) -> EndpointStatus:
    return EndpointStatus(
        address=address,
        eligible=not drained,
        ineligible=["drained"] if drained else [],
        full=False,
        weight=1 if weight is None else weight,
        weight_override=weight,
        priority=0,
        zone=None,
        max_connections=None,
        metadata={},
        unverified=False,
        active=3,
        total=2000,
        failure_streak=0,
        connect_failures={"refused": 2},
        sent_bytes=5 * 1024 * 1024,
        received_bytes=12,
    )


def source() -> SourceStatus:
    return SourceStatus(
        name="static",
        kind="static",
        state="current",
        age_s=5.0,
        results={"applied": 0},
        refused={},
        held=0,
        held_why="",
        unverified=False,
        snapshot_age_s=None,
        error="",
        asks_for="",
        endpoints=None,
        retry_in_s=None,
        says=["endpoints of the configuration"],
    )


def session(number: int) -> SessionStatus:
    return SessionStatus(
        id=number,
        listener="web",
        upstream="web",
        endpoint=ENDPOINTS[0],
        client="2001:db8::1",
        client_port=5000 + number,
        phase="relay",
        attempts=1,
        age_s=75.0,
        idle_s=1.5,
        sent_bytes=10,
        received_bytes=20,
        client_rtt_s=0.0123,
        client_retransmits=4,
        upstream_rtt_s=None,
        upstream_retransmits=None,
    )


@dataclass
class FakeOperations:
    """`told` holds every order, in order."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    names: tuple[str, ...] = ("web",)
    made_known: tuple[str, ...] = ()
    live: list[int] = field(default_factory=lambda: [1, 2, 3])
    registered: set[str] = field(default_factory=set)
    drained: set[str] = field(default_factory=set)
    sources: list[SourceStatus] = field(default_factory=lambda: [source()])
    hold: asyncio.Event | None = None  # a reload waits for it

    def readiness(self, *, strict: bool) -> Readiness:
        if strict:
            return Readiness((*self.reasons, "upstream spare has no usable endpoint"))
        return Readiness(self.reasons, ("spare is old",))

    def config(self) -> dict[str, Any]:
        return {"admin": {"token": "(redacted)"}}

    def listeners(self) -> Sequence[ListenerStatus]:
        return [
            ListenerStatus(
                name=name,
                binds=["127.0.0.1:8080"],
                upstream="web",
                state="accepting",
                active=3,
                accepted=10,
                rejected={"acl": 1},
                accept_pauses=0,
                max_connections=100,
            )
            for name in self.names
        ]

    def registrations(self) -> Sequence[RegistrationStatus]:
        return [
            RegistrationStatus(
                name=f"{service}-8080",
                service=service,
                address="",
                port=8080,
                state="registered",
                status="critical",
                output="draining",
                error="",
                failures=2,
            )
            for service in self.made_known
        ]

    def upstreams(self) -> Sequence[UpstreamStatus]:
        return [self._upstream(name) for name in self.names]

    def _upstream(self, name: str) -> UpstreamStatus:
        if name not in self.names:
            raise NotFound(f"no upstream {name}")
        return UpstreamStatus(
            name=name,
            kind="endpoints",
            strategy="round_robin",
            drained=False,
            endpoints_total=len(ENDPOINTS),
            endpoints_eligible=len(ENDPOINTS) - len(self.drained),
            active=3,
            waiting=0,
            connect_attempts=9,
        )

    def upstream(self, name: str, *, limit: int, after: str) -> UpstreamDetail:
        left = [one for one in ENDPOINTS if one > after]
        return UpstreamDetail(
            **self._upstream(name),
            sources=list(self.sources),
            endpoints=[endpoint(one, drained=one in self.drained) for one in left[:limit]],
            next=left[limit - 1] if len(left) > limit else None,
        )

    def sessions(
        self, *, limit: int, after: int, upstream: str | None = None
    ) -> tuple[Sequence[SessionStatus], int | None]:
        if upstream is not None:
            self._upstream(upstream)
        left = [one for one in self.live if one > after]
        return [session(one) for one in left[:limit]], left[limit - 1] if len(left) > limit else None

    def drain_endpoint(self, upstream: str, address: str, *, deadline_s: float | None) -> EndpointStatus:
        self._find(upstream, address)
        self.told.append(("drain", upstream, address, deadline_s))
        self.drained.add(address)
        return endpoint(address, drained=True)

    def undrain_endpoint(self, upstream: str, address: str) -> EndpointStatus:
        self._find(upstream, address)
        self.told.append(("undrain", upstream, address))
        self.drained.discard(address)
        return endpoint(address)

    def set_weight(self, upstream: str, address: str, weight: int | None) -> EndpointStatus:
        self._find(upstream, address)
        if weight is not None and not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"from 0 to {MAX_WEIGHT}")
        self.told.append(("weight", upstream, address, weight))
        return endpoint(address, weight=weight)

    def drain_upstream(self, upstream: str, *, deadline_s: float | None) -> UpstreamStatus:
        found = self._upstream(upstream)
        self.told.append(("drain", upstream, deadline_s))
        return found

    def undrain_upstream(self, upstream: str) -> UpstreamStatus:
        found = self._upstream(upstream)
        self.told.append(("undrain", upstream))
        return found

    async def obey(self, upstream: str, source: str) -> ObeyResult:
        self._upstream(upstream)
        for each in self.sources:
            if each["name"] == source:
                if not each["held"]:
                    raise Refused(f"upstream {upstream}: {source} holds nothing")
                self.told.append(("obey", upstream, source))
                return ObeyResult(upstream=upstream, source=source, let_go=each["held"])
        raise NotFound(f"upstream {upstream} has no source {source}")

    def register(self, upstream: str, address: str, registration: Registration) -> tuple[LeaseStatus, bool]:
        self._upstream(upstream)
        target = str(parse_address(address))
        if target.startswith("169.254."):
            raise Unacceptable(f"{target}: link_local")
        if len(self.registered) == 2:
            raise Refused("2 endpoints have registered: no more are taken")
        new = target not in self.registered
        self.registered.add(target)
        self.told.append(("register", upstream, target, registration))
        lease = LeaseStatus(
            address=target,
            lease_s=registration.lease_s,
            weight=registration.weight,
            zone=registration.zone,
            priority=registration.priority,
            max_connections=registration.max_connections,
            metadata=dict(registration.metadata),
        )
        return lease, new

    def deregister(self, upstream: str, address: str) -> None:
        self._upstream(upstream)
        target = str(parse_address(address))
        if target not in self.registered:
            raise NotFound(f"{target} has not registered with upstream {upstream}")
        self.registered.discard(target)
        self.told.append(("deregister", upstream, target))

    def drain(self) -> None:
        self.told.append(("drain",))

    async def reload(self) -> ReloadResult:
        if self.hold is not None:
            await self.hold.wait()
        if self.invalid:
            raise Refused("the configuration is invalid", self.invalid)
        self.told.append(("reload",))
        return ReloadResult(
            result="applied", changes=["upstream web: endpoint added"], restart_needed=["runtime.relay"]
        )

    def kill_session(self, session: int) -> None:
        if session not in self.live:
            raise NotFound(f"no session {session}")
        self.live.remove(session)
        self.told.append(("kill", session))

    def _find(self, upstream: str, address: str) -> None:
        self._upstream(upstream)
        if address not in ENDPOINTS:
            raise NotFound(f"upstream {upstream} has no endpoint {address}")


async def metrics(accept: str) -> tuple[list[bytes], str]:
    """Two pieces, whatever is asked for."""
    return [
        PAGE[:10],
        PAGE[10:],
    ], f"text/plain; asked={accept.partition(',')[0].partition(';')[0] or 'nothing'}"


LOOPBACK = Address("127.0.0.1", 0, "inet")


@asynccontextmanager
async def serving(
    operations: FakeOperations, options: AdminOptions | None = None, **settings: Any
) -> AsyncIterator[AdminServer]:
    """The real server on a free port."""
    server = AdminServer(
        operations, settings.pop("render", metrics), options or AdminOptions(bind=LOOPBACK), **settings
    )
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def unix(path: object) -> Address:
    """The address of a socket file."""
    return parse_address(f"unix:{path}")
