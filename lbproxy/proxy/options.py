"""Options of listeners and of the dials they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from lbproxy.domain.address import Address

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None is no limit. `handshake` bounds what must be read before routing (nothing on a plain TCP listener)."""

    idle_s: float | None = 3600.0
    half_close_s: float | None = 60.0
    max_duration_s: float | None = None
    handshake_s: float | None = 5.0


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """Socket options of both legs. None leaves the kernel's own. `user_timeout_s` is off by default: it cuts a live reader that
    pauses (measured: 3 s of TCP_USER_TIMEOUT ended one after 3.5 s)."""

    keepalive_s: float | None = 60.0
    user_timeout_s: float | None = None
    receive_buffer_bytes: int | None = None
    send_buffer_bytes: int | None = None
    notsent_lowat_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """`binds` are the addresses in configured order; `backlog` is capped by net.core.somaxconn."""

    name: str
    binds: tuple[Address, ...]
    upstream: str
    max_connections: int = 10000
    backlog: int = 4096
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    on_failure: Literal["reset", "close"] = "reset"
    timeouts: Timeouts = field(default_factory=Timeouts)
    tcp: TcpOptions = field(default_factory=TcpOptions)


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """`timeout_s` bounds one dial, `budget_s` all dials of a session together. `source` is a local IP literal to dial from,
    `mark` a SO_MARK for firewall rules to skip (needs CAP_NET_ADMIN)."""

    timeout_s: float = 3.0
    attempts: int = 3
    budget_s: float = 5.0
    source: str | None = None
    mark: int | None = None
