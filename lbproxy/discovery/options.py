"""What sources are configured with; each registry's own options stand in its package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """When a registry's removals are put off (see guard.py). `share` is a fraction."""

    share: float = 0.5
    minimum: int = 1
    hold_s: float = 300.0
    empty: Literal["hold", "allow"] = "hold"


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """One source of an upstream. `name` is its label, unique within the upstream; `registry` are the options of its kind, by whose
    class `app` knows which registry to make; an answer is taken up to `limit` entries. `subject` tells two sources apart that
    name different endpoints (another service, other tags), however they are reached: what is known of one says nothing of another.
    `asks_for` says the same in words, such as `service 'web'`."""

    name: str
    registry: object
    guard: GuardOptions = field(default_factory=GuardOptions)
    limit: int = 16384
    subject: str = ""
    asks_for: str = ""
