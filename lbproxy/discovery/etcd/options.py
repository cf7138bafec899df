"""What a source of the kind `etcd` is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """`addresses` are URLs of members of one cluster. `timeout_s` bounds one request; a watch that said nothing for `quiet_s` is
    looked after; `resync_s` is how old a list may become before everything is read again."""

    prefix: str
    addresses: tuple[str, ...] = ("http://127.0.0.1:2379",)
    username: str | None = None
    password: Secret | None = None
    tls: TlsOptions = field(default_factory=TlsOptions)
    timeout_s: float = 5.0
    quiet_s: float = 15.0
    resync_s: float = 600.0
