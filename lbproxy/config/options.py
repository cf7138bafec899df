"""The whole configuration as frozen options: what the file says, with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.admin.options import AdminOptions
from lbproxy.discovery.options import DiscoveryOptions, StaticEndpoint
from lbproxy.metrics.options import MetricsOptions
from lbproxy.pool.options import PoolOptions
from lbproxy.proxy.options import ConnectOptions, ListenerOptions
from lbproxy.registration.options import RegistrationOptions
from lbproxy.relay.options import RelayChoice


@dataclass(frozen=True, slots=True)
class Share:
    """A percentage, as a fraction."""

    fraction: float


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Read once at start. `max_connections` None derives the number from RLIMIT_NOFILE, a Share takes that part of it."""

    event_loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    relay: RelayChoice = field(default_factory=RelayChoice)
    offload: Literal["off"] = "off"
    max_connections: int | Share | None = None
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 30.0
    state_dir: Path | None = None
    allow_literal_secrets: bool = False


@dataclass(frozen=True, slots=True)
class LogOptions:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    access: AccessLogOptions = field(default_factory=AccessLogOptions)


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    pool: PoolOptions
    connect: ConnectOptions = field(default_factory=ConnectOptions)
    endpoints: tuple[StaticEndpoint, ...] = ()
    discovery: tuple[DiscoveryOptions, ...] = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """Listeners and upstreams by name, in the file's order."""

    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    admin: AdminOptions = field(default_factory=AdminOptions)
    log: LogOptions = field(default_factory=LogOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    registration: RegistrationOptions | None = None
    listeners: Mapping[str, ListenerOptions] = field(default_factory=lambda: MappingProxyType({}))
    upstreams: Mapping[str, UpstreamOptions] = field(default_factory=lambda: MappingProxyType({}))
