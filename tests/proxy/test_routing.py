"""Where a redirected client meant to go, from what the kernel says of its socket."""

from __future__ import annotations

import socket
import struct
from typing import Any, cast

import pytest

from lbproxy.domain.address import Address, ip_address
from lbproxy.proxy.routing import original_destination
from lbproxy.relay.contract import Socket


class Redirected:
    """As a socket whose client meant `host` and `port`; a redirect itself is in the end-to-end tests."""

    def __init__(self, local: tuple[Any, ...], host: str, port: int, scope: int = 0) -> None:
        self.family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        self._local = local
        packed = struct.pack("!H", port)
        if ":" in host:
            self._meant = (
                struct.pack("=H", socket.AF_INET6)
                + packed
                + bytes(4)
                + socket.inet_pton(socket.AF_INET6, host)
                + struct.pack("=I", scope)
            )
        else:
            self._meant = struct.pack("=H", socket.AF_INET) + packed + socket.inet_aton(host) + bytes(8)

    def getsockname(self) -> tuple[Any, ...]:
        return self._local

    def getsockopt(self, _level: int, _option: int, length: int) -> bytes:
        assert length == len(self._meant)
        return self._meant


@pytest.mark.parametrize(
    ("client", "meant"),
    [
        (Redirected(("127.0.0.1", 15001), "10.0.0.1", 80), ip_address("10.0.0.1", 80)),
        (Redirected(("::ffff:127.0.0.1", 15001, 0, 0), "10.0.0.1", 80), ip_address("10.0.0.1", 80)),
        (Redirected(("::1", 15001, 0, 0), "2001:db8::1", 80), ip_address("2001:db8::1", 80)),
        (Redirected(("fe80::9", 15001, 0, 1), "fe80::1", 80, scope=1), ip_address("fe80::1%lo", 80)),
        (Redirected(("127.0.0.1", 15001), "127.0.0.1", 15001), None),
        (Redirected(("fe80::9", 15001, 0, 1), "fe80::9", 15001, scope=1), None),
    ],
)
def test_what_the_kernel_kept_is_where_the_client_meant_to_go(
    client: Redirected, meant: Address | None
) -> None:
    """None for a client that meant us; a link-local address keeps its zone."""
    assert original_destination(cast("Socket", client)) == meant
