"""What a source of the kind `http` is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """`timeout_s` bounds one question as a whole, to the last byte of the answer. `headers` go with every question; `token` goes as
    a Bearer token, and only to the host of the URL."""

    url: str
    interval_s: float = 10.0
    timeout_s: float = 10.0
    headers: tuple[tuple[str, str], ...] = ()
    token: Secret | None = None
    tls: TlsOptions = field(default_factory=TlsOptions)
