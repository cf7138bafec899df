"""What a source of the kind `kubernetes` is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions

Family = Literal["auto", "ipv4", "ipv6"]


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """`address` None is the cluster that the process runs in, with the credentials that a pod is given; what is set here of token,
    authorities and namespace stands for the pod's. `port` is a name or a number of the endpoints' own ports, None their only one.
    `timeout_s` bounds one request, `watch_s` is how long one watch lasts, `resync_s` how old a list may become."""

    service: str
    namespace: str | None = None
    port: str | int | None = None
    family: Family = "auto"
    address: str | None = None
    token: Secret | None = None
    tls: TlsOptions = field(default_factory=TlsOptions)
    timeout_s: float = 10.0
    watch_s: float = 120.0
    resync_s: float = 600.0
