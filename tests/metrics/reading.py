"""Readings to render."""

from __future__ import annotations

from lbproxy.domain.histogram import CONNECT_BOUNDS_S, DURATION_BOUNDS_S, Histogram
from lbproxy.metrics.contract import (
    EndpointReading,
    ListenerReading,
    Reading,
    RegistrationReading,
    RouteReading,
    SourceReading,
    UpstreamReading,
)


def histogram(bounds: tuple[float, ...], *values: float) -> Histogram:
    made = Histogram(bounds)
    for value in values:
        made.observe(value)
    return made


def endpoint(label: str, total: int = 7) -> EndpointReading:
    return EndpointReading(label, total, 3, {"refused": 2, "timeout": 1}, 1000, 2000, True, 5)


def reading(endpoints: int = 2, name: str = "web") -> Reading:
    """One listener, one upstream, so many endpoints of which the first has served most."""
    return Reading(
        build={"version": "1.2.3", "python": "3.11", "event_loop": "uvloop", "relay": "asyncio"},
        listeners=[ListenerReading(name, 10, 4, {"acl": 3}, 1)],
        routes=[
            RouteReading(
                name, name, {"client_eof": 5, "idle_timeout": 1}, histogram(DURATION_BOUNDS_S, 0.02, 3, 1e6)
            )
        ],
        upstreams=[
            UpstreamReading(
                name,
                endpoints,
                histogram(CONNECT_BOUNDS_S, 0.0005, 0.003),
                12,
                0,
                [endpoint(f"10.0.{i // 250}.{i % 250}:80", total=endpoints - i) for i in range(endpoints)],
                [
                    SourceReading("consul", {"applied": 2, "error": 1}, {"port": 3}, 1.5, 4),
                    SourceReading("dns", {"applied": 0}, {}, 9.0, 0),
                ],
            )
        ],
        reloads={"applied": 2},
        last_reload_successful=False,
        access_log_dropped=9,
        registrations=[RegistrationReading("web", "web-8080", registered=True, failures=3)],
        relay={"turns_total": 4, "pending_bytes": 77},
    )
