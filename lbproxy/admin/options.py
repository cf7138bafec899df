"""Where the admin interface listens and who may use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbproxy.domain.address import Address
from lbproxy.wire.secrets import Secret


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """`metrics_bind` serves only /metrics, /healthz and /readyz, without a token."""

    bind: Address = field(default_factory=lambda: Address("127.0.0.1", 9900, "inet"))
    token: Secret | None = None
    metrics_bind: Address | None = None
