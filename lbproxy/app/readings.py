"""Where the metrics page gets its numbers: plain integers, copied when it asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from lbproxy.app.running import Running
from lbproxy.discovery.contract import Source
from lbproxy.domain.endpoint import Endpoint
from lbproxy.metrics.contract import (
    EndpointReading,
    ListenerReading,
    Reading,
    RegistrationReading,
    RouteReading,
    SourceReading,
    UpstreamReading,
)
from lbproxy.registration.contract import KeeperStatus


def read(running: Running, build: Mapping[str, str], registrations: Iterable[KeeperStatus]) -> Reading:
    """One `Reading` of everything."""
    statistics = dataclasses.asdict(running.relay.statistics())
    configured = running.loaded.configuration.upstreams
    live = statistics["submitted"] - statistics["ended"]
    return Reading(
        build=build,
        listeners=[
            ListenerReading(
                name, listener.accepted, listener.active, _named(listener.rejected), listener.accept_pauses
            )
            for name, listener in running.listeners.items()
        ],
        routes=[
            RouteReading(listener, upstream, _named(route.ended), route.duration)
            for (listener, upstream), route in running.routes.items()
        ],
        upstreams=[
            UpstreamReading(
                name,
                upstream.pool.usable if name in configured else None,
                upstream.pool.connect_duration,
                upstream.pool.attempts,
                upstream.pool.waiting,
                (read_endpoint(running, endpoint) for endpoint in upstream.pool.endpoints()),
                [_source(source) for source in upstream.sources],
            )
            for name, upstream in running.upstreams.items()
        ],
        reloads=running.reloads,
        last_reload_successful=running.last_reload_successful,
        access_log_dropped=sum(
            log.dropped for log in (running.access_log, *running.retired_logs) if log is not None
        ),
        registrations=[
            RegistrationReading(each.service, each.id, each.state == "registered", each.failures)
            for each in registrations
        ],
        relay={
            "submitted_total": statistics["submitted"],
            "connected_total": statistics["connected"],
            "ended_total": statistics["ended"],
            "turns_total": statistics["turns"],
            "yields_total": statistics["yields"],
            "pending_bytes": statistics["pending_bytes"],
            "sessions_active": live,
        },
    )


def _source(source: Source) -> SourceReading:
    status = source.status
    return SourceReading(source.name, status.results, status.refused, status.age_s, status.held)


def _named(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items()}


def read_endpoint(running: Running, endpoint: Endpoint) -> EndpointReading:
    """One endpoint with its live byte counts."""
    counted = running.relay.read_slot(endpoint.slot)
    return EndpointReading(
        endpoint.label,
        endpoint.total,
        endpoint.active,
        _named(endpoint.connect_failures),
        counted.sent_bytes,
        counted.received_bytes,
        not endpoint.ineligible,
        endpoint.weight,
    )
