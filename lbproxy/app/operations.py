"""What the admin interface may ask, answered from the live parts (`admin.contract.Operations`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lbproxy.admin import sources
from lbproxy.admin.contract import NotFound, Readiness, Refused, Registration
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
from lbproxy.app import registrations
from lbproxy.app.running import Running
from lbproxy.app.upstreams import Upstream
from lbproxy.discovery.contract import Source
from lbproxy.domain.effects import Effect
from lbproxy.domain.endpoint import Endpoint, Ineligible
from lbproxy.domain.session import EndReason, Phase, State
from lbproxy.proxy.listener import Listener
from lbproxy.proxy.sessions import Session
from lbproxy.registration.contract import KeeperStatus
from lbproxy.relay.contract import SessionView

Json = dict[str, Any]

_PHASES = {
    State.ROUTED: Phase.ROUTE,
    State.WAITING: Phase.WAIT,
    State.PICKED: Phase.CONNECT,
    State.DIALING: Phase.CONNECT,
    State.RELAYING: Phase.RELAY,
}


class AdminOperations:
    """`apply` carries out effects, `begin_drain` is what SIGTERM calls, `reload` what SIGHUP does, `announced` tells
    how each registration fares, `configuration_warnings` why what is in force may not be what stands where it comes from."""

    def __init__(
        self,
        running: Running,
        apply: Callable[[Sequence[Effect]], None],
        begin_drain: Callable[[float | None], None],
        reload: Callable[[], Awaitable[ReloadResult]],
        announced: Callable[[], Sequence[KeeperStatus]],
        configuration_warnings: Callable[[], Sequence[str]],
    ) -> None:
        self._running = running
        self._apply = apply
        self._begin_drain = begin_drain
        self._reload = reload
        self._announced = announced
        self._configuration_warnings = configuration_warnings

    # -- questions

    def readiness(self, *, strict: bool) -> Readiness:
        running = self._running
        configuration = running.loaded.configuration
        reasons = ["draining"] if running.draining else []
        reasons += [
            f"listener {name} is not bound"
            for name in configuration.listeners
            if not running.listeners[name].sockets
        ]
        warnings = [
            f"listener {name} is at a limit and does not accept"
            for name in configuration.listeners
            if running.listeners[name].state == "paused"
        ]
        warnings += source_warnings(running)
        warnings += self._configuration_warnings()
        usable = {name: running.upstreams[name].pool.usable > 0 for name in configuration.upstreams}
        unusable = [f"upstream {name} has no usable endpoint" for name, well in usable.items() if not well]
        if strict or (usable and not any(usable.values())):
            return Readiness((*reasons, *unusable), tuple(warnings))
        return Readiness(tuple(reasons), (*unusable, *warnings))

    def config(self) -> Json:
        return self._running.loaded.document

    def listeners(self) -> Sequence[ListenerStatus]:
        return [self._listener(listener) for listener in self._running.listeners.values()]

    def _listener(self, listener: Listener) -> ListenerStatus:
        return ListenerStatus(
            name=listener.name,
            binds=[str(address) for address in listener.addresses],
            upstream=listener.options.upstream,
            state=listener.state,
            active=listener.active,
            accepted=listener.accepted,
            rejected={str(reason): count for reason, count in listener.rejected.items() if count},
            accept_pauses=listener.accept_pauses,
            max_connections=listener.options.max_connections,
        )

    def registrations(self) -> Sequence[RegistrationStatus]:
        return [
            RegistrationStatus(
                name=each.id,
                service=each.service,
                address=each.address,
                port=each.port,
                state=each.state,
                status=each.status,
                output=each.output,
                error=each.error,
                failures=each.failures,
            )
            for each in self._announced()
        ]

    def upstreams(self) -> Sequence[UpstreamStatus]:
        return [self._upstream(upstream) for upstream in self._running.upstreams.values()]

    def _upstream(self, upstream: Upstream) -> UpstreamStatus:
        pool = upstream.pool
        endpoints = pool.endpoints()
        return UpstreamStatus(
            name=pool.name,
            kind=pool.options.kind,
            strategy=pool.options.strategy.type if pool.options.kind == "endpoints" else "",
            drained=pool.drained,
            endpoints_total=sum(1 for each in endpoints if not each.ineligible & Ineligible.REMOVED),
            endpoints_eligible=pool.usable,
            active=sum(each.active for each in endpoints),
            waiting=pool.waiting,
            connect_attempts=pool.attempts,
        )

    def upstream(self, name: str, *, limit: int, after: str) -> UpstreamDetail:
        upstream = self._find_upstream(name)
        ordered = sorted(
            (each for each in upstream.pool.endpoints() if each.label > after), key=lambda each: each.label
        )
        page = [self._endpoint(each) for each in ordered[:limit]]
        more = ordered[limit - 1].label if len(ordered) > limit else None
        now = self._running.loop.time()
        told = [_source(each, now) for each in upstream.sources]
        return UpstreamDetail(**self._upstream(upstream), sources=told, endpoints=page, next=more)

    def _endpoint(self, endpoint: Endpoint) -> EndpointStatus:
        counted = self._running.relay.read_slot(endpoint.slot)
        return EndpointStatus(
            address=endpoint.label,
            eligible=not endpoint.ineligible,
            ineligible=[str(cause.name).lower() for cause in Ineligible if cause in endpoint.ineligible],
            full=endpoint.full,
            weight=endpoint.weight,
            weight_override=endpoint.weight_override,
            priority=endpoint.priority,
            zone=endpoint.member.zone,
            max_connections=endpoint.max_connections,
            metadata=dict(endpoint.member.metadata),
            unverified=endpoint.unverified,
            active=endpoint.active,
            total=endpoint.total,
            failure_streak=endpoint.failure_streak,
            connect_failures={str(failure): count for failure, count in endpoint.connect_failures.items()},
            sent_bytes=counted.sent_bytes,
            received_bytes=counted.received_bytes,
        )

    def sessions(
        self, *, limit: int, after: int, upstream: str | None = None
    ) -> tuple[Sequence[SessionStatus], int | None]:
        if upstream is not None:
            self._find_upstream(upstream)
        found: list[SessionStatus] = []
        for session in self._running.dialer.sessions:
            if session.id <= after or (upstream is not None and session.route.upstream != upstream):
                continue
            if len(found) == limit:
                return found, found[-1]["id"]
            found.append(self._session(session, self._running.relay.look(session.id)))
        return found, None

    def _session(self, session: Session, view: SessionView | None) -> SessionStatus:
        age_s = self._running.dialer.clock() - session.started
        client = None if view is None else view.client_tcp
        upstream = None if view is None else view.upstream_tcp
        return SessionStatus(
            id=session.id,
            listener=session.route.listener,
            upstream=session.route.upstream,
            endpoint="" if session.lease is None else session.lease.endpoint.label,
            client=session.client_host,
            client_port=session.client_port,
            phase=str(view.phase if view is not None else _PHASES[session.state]),
            attempts=session.attempts,
            age_s=age_s,
            idle_s=view.idle_s if view is not None else age_s,
            sent_bytes=view.sent_bytes if view is not None else 0,
            received_bytes=view.received_bytes if view is not None else 0,
            client_rtt_s=None if client is None else client.rtt_s,
            client_retransmits=None if client is None else client.retransmits,
            upstream_rtt_s=None if upstream is None else upstream.rtt_s,
            upstream_retransmits=None if upstream is None else upstream.retransmits,
        )

    # -- orders

    def drain_endpoint(self, upstream: str, address: str, *, deadline_s: float | None) -> EndpointStatus:
        pool = self._find_upstream(upstream).pool
        return self._change(upstream, address, lambda now: pool.drain(address, now, deadline_s))

    def undrain_endpoint(self, upstream: str, address: str) -> EndpointStatus:
        pool = self._find_upstream(upstream).pool
        return self._change(upstream, address, lambda now: pool.undrain(address, now))

    def set_weight(self, upstream: str, address: str, weight: int | None) -> EndpointStatus:
        pool = self._find_upstream(upstream).pool
        return self._change(upstream, address, lambda now: pool.set_weight(address, weight, now))

    def drain_upstream(self, upstream: str, *, deadline_s: float | None) -> UpstreamStatus:
        pool = self._find_upstream(upstream).pool
        self._apply(pool.drain_all(self._running.loop.time(), deadline_s))
        return self._upstream(self._find_upstream(upstream))

    def undrain_upstream(self, upstream: str) -> UpstreamStatus:
        found = self._find_upstream(upstream)
        self._apply(found.pool.undrain_all(self._running.loop.time()))
        return self._upstream(found)

    async def obey(self, upstream: str, source: str) -> ObeyResult:
        for each in self._find_configured(upstream).sources:
            if each.name == source:
                let_go = await each.obey()
                if not let_go:
                    raise Refused(f"upstream {upstream}: {source} holds nothing: its last answer is in force")
                return ObeyResult(upstream=upstream, source=source, let_go=let_go)
        raise NotFound(f"upstream {upstream} has no source {source}")

    def register(self, upstream: str, address: str, registration: Registration) -> tuple[LeaseStatus, bool]:
        return registrations.register(self._find_configured(upstream), address, registration)

    def deregister(self, upstream: str, address: str) -> None:
        registrations.deregister(self._find_configured(upstream), address)

    def _change(
        self, upstream: str, address: str, order: Callable[[float], Sequence[Effect]]
    ) -> EndpointStatus:
        try:
            effects = order(self._running.loop.time())
        except KeyError as error:
            raise NotFound(f"upstream {upstream} has no endpoint {address}") from error
        self._apply(effects)
        for endpoint in self._find_upstream(upstream).pool.endpoints():
            if endpoint.label == address:
                return self._endpoint(endpoint)
        raise NotFound(f"upstream {upstream} has no endpoint {address}")

    def drain(self, *, deadline_s: float | None = None) -> None:
        self._begin_drain(deadline_s)

    async def reload(self) -> ReloadResult:
        return await self._reload()

    def kill_session(self, session: int) -> None:
        found = self._running.dialer.sessions.get(session)
        if found is None:
            raise NotFound(f"no session {session}")
        self._running.dialer.abort(found, EndReason.KILLED, reset=True)

    def _find_configured(self, name: str) -> Upstream:
        """Not one whose last sessions are still there."""
        if name not in self._running.loaded.configuration.upstreams:
            raise NotFound(f"no upstream {name}")
        return self._find_upstream(name)

    def _find_upstream(self, name: str) -> Upstream:
        upstream = self._running.upstreams.get(name)
        if upstream is None:
            raise NotFound(f"no upstream {name}")
        return upstream


def _source(source: Source, now: float) -> SourceStatus:
    status = source.status
    refreshed_at = source.refreshed_at
    told = SourceStatus(
        name=source.name,
        kind=source.name.partition("_")[0],  # the second of a kind is KIND_2
        state="current",
        age_s=None if refreshed_at is None else max(0.0, now - refreshed_at),
        results=dict(status.results),
        refused=dict(status.refused),
        held=status.held,
        held_why=status.held_why,
        unverified=status.unverified,
        snapshot_age_s=status.snapshot_age_s,
        error=status.error,
        asks_for=status.asks_for,
        endpoints=status.endpoints,
        retry_in_s=status.retry_in_s,
        says=[],
    )
    told["state"] = sources.state(told)
    told["says"] = sources.says(told)
    return told


def source_warnings(running: Running) -> list[str]:
    """What an operator should know of sources, though everything serves."""
    warnings = []
    for name in running.loaded.configuration.upstreams:
        for source in running.upstreams[name].sources:
            status = source.status
            if status.held:
                warnings.append(
                    f"upstream {name}: {status.held} endpoints that {source.name} no longer names are held {status.held_why}"
                )
            elif status.error:
                # In how many seconds, the source's status says: a warning goes into registries, and must not change all the time.
                warnings.append(
                    f"upstream {name}: {source.name} gives no answer, and is asked again: {status.error}"
                )
            elif source.refreshed_at is None and not status.unverified:
                asked = f" ({status.asks_for})" if status.asks_for else ""
                warnings.append(f"upstream {name}: {source.name} has not answered yet{asked}")
            if status.unverified:
                warnings.append(
                    f"upstream {name}: {source.name} has not answered yet; endpoints are those last known"
                )
    return warnings
