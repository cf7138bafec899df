"""What of this process is made known in a registry, and how it is reached there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lbproxy.wire.consul_options import ConsulAccess


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The check that carries our readiness. Without an update for `ttl_s` the registry calls us critical; critical for
    `deregister_critical_after_s` (None: never), it forgets us. `on_warning`: what is told while we are ready with warnings."""

    ttl_s: float = 15.0
    deregister_critical_after_s: float | None = 600.0
    on_warning: Literal["pass", "warn"] = "pass"


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """One service. `id` None is made of name, host and port. Without `address` and `port` the listener's own stand.

    `ready_when`: `process` says what /readyz says; `upstream` looks at the listener and its upstream alone.
    """

    name: str
    id: str | None = None
    listener: str | None = None
    address: str | None = None
    port: int | None = None
    ready_when: Literal["process", "upstream"] = "process"
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    passing_weight: int = 1
    warning_weight: int = 1
    check: CheckOptions = field(default_factory=CheckOptions)


@dataclass(frozen=True, slots=True)
class RegistrationOptions:
    """Services are registered with the agent at `consul.address`; its own node is where they are."""

    services: tuple[ServiceOptions, ...] = ()
    consul: ConsulAccess = field(default_factory=ConsulAccess)
