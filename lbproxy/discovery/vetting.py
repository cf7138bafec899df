"""What becomes of a registry's entries: discovered data is nobody's word but the registry's, so each entry is looked at on its own.

An entry that is refused costs the answer only itself. Loopback and private addresses are fine: sidecars live there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.names import member_of
from lbproxy.discovery.options import StaticEndpoint
from lbproxy.domain.address import AddressError, HostName, parse_target
from lbproxy.domain.membership import MAX_WEIGHT, NO_METADATA, Member

MAX_PRIORITY: Final = 1000
MAX_CONNECTIONS: Final = 10_000_000
MAX_TEXT: Final = 1024  # characters of a zone, a key or a value of metadata
MAX_METADATA: Final = 64  # entries

# Link-local addresses hold the metadata services of the clouds: 169.254.169.254 (AWS, Azure, Google, OpenStack), fe80::a9fe:a9fe.
# These are theirs beyond that range: AWS by IPv6, Alibaba, Oracle's old one.
_METADATA_SERVICES: Final = frozenset({"fd00:ec2::254", "100.100.100.200", "192.0.0.192"})

_NAT64: Final = int(ipaddress.IPv6Address("64:ff9b::")) >> 32
_STANDING_FOR_IPV4: Final = ("64:ff9b:", "2002:", "::")


class Refusal(StrEnum):
    """Why an entry was not taken: the label `reason` of `lbproxy_discovery_refused_entries_total`."""

    ADDRESS = "address"  # neither an IP address nor a host name, or one that nobody can dial (unspecified, multicast)
    PORT = "port"
    LINK_LOCAL = "link_local"
    CLOUD_METADATA = "cloud_metadata"
    OWN_LISTENER = "own_listener"
    VALUE = "value"  # a weight, priority or limit out of range
    TOO_LONG = "too_long"
    LIMIT = "limit"
    UNRESOLVED = "unresolved"  # a host name that never gave an address


def vet(candidate: Candidate) -> Member | StaticEndpoint | Refusal:
    """A member; for a host name what is still to be resolved; or why it is not taken."""
    if not 1 <= candidate.port <= 65535:
        return Refusal.PORT
    if not _in_range(candidate):
        return Refusal.VALUE
    if len(candidate.host) > MAX_TEXT or _too_long(candidate):
        return Refusal.TOO_LONG
    host = f"[{candidate.host}]" if ":" in candidate.host else candidate.host
    try:
        target = parse_target(f"{host}:{candidate.port}")
    except AddressError:
        return Refusal.ADDRESS
    metadata = MappingProxyType(dict(candidate.metadata)) if candidate.metadata else NO_METADATA
    endpoint = StaticEndpoint(
        target, candidate.weight, candidate.zone, candidate.priority, candidate.max_connections, metadata
    )
    if isinstance(target, HostName):
        return endpoint
    # A registry speaks of other machines: a unix socket of ours is no business of its.
    return Refusal.ADDRESS if target.family == "unix" else member_of(endpoint, target)


def _in_range(candidate: Candidate) -> bool:
    most = candidate.max_connections
    return (
        0 <= candidate.weight <= MAX_WEIGHT
        and 0 <= candidate.priority <= MAX_PRIORITY
        and (most is None or 1 <= most <= MAX_CONNECTIONS)
    )


def _too_long(candidate: Candidate) -> bool:
    metadata: Mapping[str, str] = candidate.metadata
    return (
        (candidate.zone is not None and len(candidate.zone) > MAX_TEXT)
        or len(metadata) > MAX_METADATA
        or any(len(key) > MAX_TEXT or len(value) > MAX_TEXT for key, value in metadata.items())
    )


def _embedded(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address behind one of IPv6 that stands for it: NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC 4291, 2.5.5.1)."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip.sixtofour is not None:
        return ip.sixtofour
    high, low = divmod(int(ip), 1 << 32)
    return ipaddress.IPv4Address(low) if high == _NAT64 or (high == 0 and low > 1) else None


def undialable(host: str) -> Refusal | None:
    """Why nobody should dial this IP literal, whatever a registry, or the DNS behind it, says; None if it is fine."""
    if host in _METADATA_SERVICES:
        return Refusal.CLOUD_METADATA
    if host.startswith(_STANDING_FOR_IPV4):
        behind = _embedded(ipaddress.ip_address(host))
        if behind is not None and (why := undialable(str(behind))) is not None:
            return why
    # Most addresses are neither, and parsing ten thousand of them for one answer would hold the loop.
    first = host[:4].lower()
    if first == "169." or first.startswith(("fe8", "fe9", "fea", "feb")):
        if ipaddress.ip_address(host).is_link_local:
            return Refusal.LINK_LOCAL
    elif first.startswith(("22", "23", "24", "25", "0.", "ff", "::")):
        ip = ipaddress.ip_address(host)
        if ip.is_unspecified or ip.is_multicast or host == "255.255.255.255":
            return Refusal.ADDRESS
    return None
