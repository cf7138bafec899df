"""What the metrics page reads: plain integers, at scrape time, through these shapes. Implemented by `app`.

The collector asks for one `Reading` a scrape; building it copies references and integers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lbproxy.domain.histogram import Histogram


@dataclass(slots=True)
class ListenerReading:
    name: str
    accepted: int
    active: int
    rejected: Mapping[str, int]
    accept_pauses: int


@dataclass(slots=True)
class RouteReading:
    """One pair of listener and upstream."""

    listener: str
    upstream: str
    ended: Mapping[str, int]
    duration: Histogram


@dataclass(slots=True)
class EndpointReading:
    label: str
    total: int
    active: int
    connect_failures: Mapping[str, int]
    sent_bytes: int
    received_bytes: int
    eligible: bool
    weight: int


@dataclass(slots=True)
class SourceReading:
    name: str
    results: Mapping[str, int]
    refused: Mapping[str, int]
    age_s: float
    held: int


@dataclass(slots=True)
class UpstreamReading:
    """`endpoints` may be lazy (a generator over a tuple of the live ones): it is read once, some hundred at a time, so that ten
    thousand endpoints are no long step on the loop. `eligible` is None for an upstream that has left the configuration."""

    name: str
    eligible: int | None
    connect_duration: Histogram
    connect_attempts: int
    waiting: int
    endpoints: Iterable[EndpointReading]
    sources: Sequence[SourceReading] = ()


@dataclass(slots=True)
class RegistrationReading:
    """One service at a registry: its name there, its id, whether it is registered as far as is known, and the calls that failed."""

    service: str
    id: str
    registered: bool
    failures: int


@dataclass(slots=True)
class Reading:
    build: Mapping[str, str]
    listeners: Sequence[ListenerReading]
    routes: Sequence[RouteReading]
    upstreams: Sequence[UpstreamReading]
    reloads: Mapping[str, int]
    last_reload_successful: bool
    access_log_dropped: int
    registrations: Sequence[RegistrationReading] = ()
    relay: Mapping[str, float] = field(default_factory=dict)


ReadingSource = Callable[[], Reading]
