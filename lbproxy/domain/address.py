"""Addresses: what can be bound or dialled, normalised once, so that equality is identity.

`Address` is final (an IP literal with a port, or a unix socket path); `HostName` still needs a resolver.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Family = Literal["inet", "inet6", "unix"]
SockAddress = tuple[str, int] | tuple[str, int, int, int] | str | bytes

_NAME = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?$")
_ZONE = re.compile(r"[!-~]{1,15}")  # an interface name, IFNAMSIZ - 1
_DOUBLED = re.compile(r"/(?:\.?/)+")  # names the same file; `..` may not, behind a symbolic link
_UNIX_PATH_LIMIT_BYTES = 107  # sizeof(sockaddr_un.sun_path) - 1, unix(7)


class AddressError(ValueError):
    """The text is no address; the message says why, in words for the person who wrote it."""


class Address(NamedTuple):
    """One socket address. `host` is a canonical IP literal (mapped IPv4 unwrapped, a zone id kept), a unix path, or
    `@name` for Linux's abstract namespace; `port` is 0 for unix sockets.

    A tuple, because it is the key of every table of endpoints: a dataclass hashes in Python, ten times slower.
    """

    host: str
    port: int
    family: Family

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if self.family == "inet6" else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """True for 0.0.0.0 and [::]: every address of the machine."""
        return self.family != "unix" and ipaddress.ip_address(self.host).is_unspecified


@dataclass(frozen=True, slots=True, order=True)
class HostName:
    """A DNS name (lower case, no trailing dot) with a port: becomes one or more `Address` by resolution."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def normalise_ip(text: str) -> str:
    """The canonical form of an IP literal; `::ffff:a.b.c.d` becomes `a.b.c.d`. Raises AddressError."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError as error:
        raise AddressError(f"{text!r} is not an IP address") from error
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None and not _ZONE.fullmatch(ip.scope_id):
            raise AddressError(f"{text!r} names no network interface")
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
    return str(ip)


def ip_address(host: str, port: int) -> Address:
    """An Address from an IP literal and a port. Raises AddressError."""
    host = normalise_ip(host)
    return Address(host, port, "inet6" if ":" in host else "inet")


def unix_address(path: str) -> Address:
    """An Address from a unix socket path, or from `@name` for an abstract one. Raises AddressError."""
    if not path or path == "@":
        raise AddressError("a unix socket needs a path")
    if "\0" in path:
        raise AddressError("a unix socket path holds a NUL byte")
    if not path.startswith("@"):
        path = _DOUBLED.sub("/", path)
    if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
        raise AddressError("a unix socket path must be UTF-8 text")
    if len(path.encode()) > _UNIX_PATH_LIMIT_BYTES:
        raise AddressError(f"a unix socket path is at most {_UNIX_PATH_LIMIT_BYTES} bytes long")
    return Address(path, 0, "unix")


def parse_target(text: str) -> Address | HostName:
    """`10.0.0.1:80`, `[::1]:80`, `unix:/run/x.sock`, `unix:@name` or `db.internal:5432`. Raises AddressError."""
    if text.startswith("unix:"):
        return unix_address(text[len("unix:") :])
    if "://" in text:
        raise AddressError(f"{text!r} is a URL; host:port is needed here")
    host, separator, port_text = text.rpartition(":")
    if not separator or not host:
        raise AddressError(f"{text!r} is not host:port")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5) or int(port_text) > 65535:
        raise AddressError(f"{port_text!r} is not a port (0 to 65535)")
    port = int(port_text)
    if host.startswith("[") and host.endswith("]"):
        if ":" not in host:
            raise AddressError(f"{host!r} is not an IPv6 address")
        return ip_address(host[1:-1], port)
    if host.count(":") == 1:
        raise AddressError(f"{text!r} is not host:port")
    if ":" in host:
        raise AddressError(f"write an IPv6 address in brackets: [{host}]:{port}")
    if host.replace(".", "").isdigit():
        return ip_address(host, port)
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise AddressError(f"{host!r} is neither an IP address nor a host name")
    return HostName(host.rstrip(".").lower(), port)


def parse_address(text: str) -> Address:
    """As `parse_target`, for places where a name will not do. Raises AddressError."""
    target = parse_target(text)
    if isinstance(target, HostName):
        raise AddressError(f"{target.name!r} is a name; an IP address or a unix socket is needed here")
    return target


def sockaddr(address: Address) -> SockAddress:
    """What `connect` and `bind` take, but for a zone id: which interface that is, this machine has to be asked (`wire.local`)."""
    if address.family == "unix":
        return b"\0" + address.host[1:].encode() if address.host.startswith("@") else address.host
    return (address.host, address.port)
