"""Endpoints written into the configuration, as addresses or as host names to be resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbproxy.domain.address import Address, HostName
from lbproxy.domain.membership import NO_METADATA


@dataclass(frozen=True, slots=True)
class StaticEndpoint:
    """A configured endpoint; a host name stands for every address it resolves to, each with these attributes."""

    target: Address | HostName
    weight: int = 1
    zone: str | None = None
    priority: int = 0
    max_connections: int | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
