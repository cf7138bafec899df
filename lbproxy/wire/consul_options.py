"""How a Consul agent is reached, as configured."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions


@dataclass(frozen=True, slots=True)
class ConsulAccess:
    """`address` is `http://host:port`, `https://host:port` (a path behind it is kept) or `unix:/path`. `tls` is for https alone.

    `datacenter`, `namespace` and `partition` go with every request that does not name its own; None: the agent's.
    """

    address: str = "http://127.0.0.1:8500"
    token: Secret | None = None
    tls: TlsOptions = field(default_factory=TlsOptions)
    datacenter: str | None = None
    namespace: str | None = None
    partition: str | None = None
