"""Where a listener's connections go: one route a pair of listener and upstream, with its counters."""

from __future__ import annotations

import socket
import struct
from typing import Final

from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.histogram import DURATION_BOUNDS_S, Histogram
from lbproxy.domain.session import EndReason
from lbproxy.pool.pool import Pool
from lbproxy.proxy.options import ConnectOptions, TcpOptions, Timeouts
from lbproxy.proxy.sockets import FAMILIES, dialing_options, keepalive, leg_options
from lbproxy.relay.contract import Dial, Doorway, Plan, RelayOptions, Socket
from lbproxy.wire.local import with_zone

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST


def _ms(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(seconds * 1000))


class Route:
    """Counters live as long as the process; what a reload may change is set by `configure`."""

    __slots__ = (
        "_keepalive",
        "_options",
        "_plans",
        "connect",
        "duration",
        "ended",
        "leg_options",
        "listener",
        "pool",
        "timeouts",
        "transparent",
        "upstream",
    )

    def __init__(self, listener: str, pool: Pool) -> None:
        self.listener = listener
        self.upstream = pool.name
        self.pool = pool
        self.ended: dict[EndReason, int] = dict.fromkeys(EndReason, 0)
        self.duration = Histogram(DURATION_BOUNDS_S)
        self.configure(Timeouts(), TcpOptions(), ConnectOptions())

    def configure(self, timeouts: Timeouts, tcp: TcpOptions, connect: ConnectOptions) -> None:
        """New limits hold for new sessions."""
        self.timeouts = timeouts
        self.connect = connect
        self.leg_options = leg_options(tcp)
        self._keepalive = keepalive(tcp)
        self.transparent = self.pool.options.kind == "original_dst"
        self._options: dict[int, RelayOptions] = {}
        self._plans: dict[int, tuple[Endpoint, Plan | None]] = {}

    def relay_options(self, endpoint: Endpoint) -> RelayOptions:
        """The limits of a session's first dial: the same object for every session of an endpoint."""
        options = self._options.get(endpoint.slot)
        if options is None:
            options = self.retry_options(endpoint, self.connect.budget_s)
            self._options[endpoint.slot] = options
        return options

    def plan(self, endpoint: Endpoint, doorway: Doorway) -> Plan | None:
        """How a session's first dial to this endpoint is launched; None if it takes more than a doorway can do."""
        # A slot is used again once its endpoint is forgotten.
        known = self._plans.get(endpoint.slot)
        if known is None or known[0] is not endpoint:
            known = self._plans[endpoint.slot] = (endpoint, self._prepare(endpoint, doorway))
        return known[1]

    def _prepare(self, endpoint: Endpoint, doorway: Doorway) -> Plan | None:
        address = endpoint.address
        family = FAMILIES[address.family]
        options = dialing_options(family, self.leg_options, self.connect)
        # What a zone means is looked up at each connect: interfaces come and go.
        if self.transparent or options is None or (address.family == "inet6" and "%" in address.host):
            return None
        return doorway.prepare(Dial(family, endpoint.sockaddr, options, self.relay_options(endpoint)))

    def retry_options(self, endpoint: Endpoint, budget_left_s: float) -> RelayOptions:
        """The limits of a later dial, with what is left of the budget."""
        return RelayOptions(
            connect_timeout_ms=_ms(min(self.connect.timeout_s, budget_left_s)),
            idle_timeout_ms=_ms(self.timeouts.idle_s),
            half_close_timeout_ms=_ms(self.timeouts.half_close_s),
            max_duration_ms=_ms(self.timeouts.max_duration_s),
            slot=endpoint.slot,
            urgent_inline=True,
            keepalive=self._keepalive,
        )


def original_destination(client: Socket) -> Address | None:
    """Where the client meant to go before a firewall's REDIRECT (SO_ORIGINAL_DST).

    None for a client that meant us: it came straight to the listener, and dialling that would be a loop.
    """
    if client.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    local = client.getsockname()
    ours = local[0]
    try:
        if client.family == socket.AF_INET or is_mapped(local[0]):
            raw = client.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
            meant = ip_address(socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0])
        else:
            raw = client.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            host = with_zone(socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("=I", raw[24:28])[0])
            meant = ip_address(host, struct.unpack("!H", raw[2:4])[0])
            ours = with_zone(ours, local[3])
    except OSError:  # ENOENT: not redirected; ENOPROTOOPT: no connection tracking here
        return None
    return None if meant == ip_address(ours, local[1]) else meant


def is_mapped(host: str) -> bool:
    """True for the kernel's spelling of an IPv4 peer on an IPv6 socket."""
    return host.startswith("::ffff:") and "." in host
