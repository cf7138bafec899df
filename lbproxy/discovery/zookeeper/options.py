"""What a source of the kind `zookeeper` is configured with."""

from __future__ import annotations

from dataclasses import dataclass

from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions


@dataclass(frozen=True, slots=True)
class ZooKeeperOptions:
    """`hosts` are `host:port` of the ensemble, one suffices. `path` is the node whose children are the endpoints. `user` and
    `password` are sent as ZooKeeper's `digest` authentication. `tls` None: without TLS."""

    hosts: tuple[str, ...]
    path: str
    session_timeout_s: float = 10.0
    user: str = ""
    password: Secret | None = None
    tls: TlsOptions | None = None
