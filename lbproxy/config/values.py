"""Durations, sizes, percentages, addresses: from what people write to numbers, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network
from math import inf
from typing import Final, TypeVar
from urllib.parse import urlsplit

from lbproxy.domain.address import (
    Address,
    AddressError,
    HostName,
    ip_address,
    normalise_ip,
    parse_address,
    parse_target,
)
from lbproxy.proxy.options import Network
from lbproxy.wire.urls import redacted_url

T = TypeVar("T")

_UNIT_S: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB|kB|KB|MB|GB)")
_UNIT_BYTES: Final = {
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
}
_PERCENTAGE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_LONGEST_S: Final = 10 * 365 * 86400.0
# TCP_KEEPIDLE counts whole seconds up to MAX_TCP_KEEPIDLE, include/net/tcp.h
_KEEPALIVE_S: Final = (1, 32767)
_CHECK_TTL_S: Final = (1, 3600)
_USER_TIMEOUT_S: Final = 24 * 86400.0  # TCP_USER_TIMEOUT is an int of milliseconds: 24.8 days


class Seconds(float):
    """A duration that knows how it is written."""

    __slots__ = ()

    def __str__(self) -> str:
        return format_duration(self)


class Part(float):
    """A fraction that knows how it is written."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self * 100:g}%"


class Bytes(int):
    """A size that knows how it is written."""

    def __str__(self) -> str:
        return format_size(self)


def duration(given: object) -> Seconds:
    """`250ms` `5s` `1m30s` `1h` `2d`, units from large to small, each once. Raises ValueError."""
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < inf:
        raise ValueError(f"a duration needs a unit: write {given}s or {given}ms")
    if not isinstance(given, str) or not _DURATION.fullmatch(given):
        raise ValueError(f"expected a duration such as 250ms, 5s or 1m30s, got {shown(given)}")
    parts = _DURATION_PART.findall(given)
    units = [_UNIT_S[unit] for _, unit in parts]
    if units != sorted(set(units), reverse=True):
        raise ValueError(f"{shown(given)}: write each unit once, from large to small, as in 1m30s")
    total_s = float(sum((Decimal(number) * _UNIT_S[unit] for number, unit in parts), Decimal(0)))
    if total_s > _LONGEST_S:
        raise ValueError(f"{shown(given)} is longer than ten years")
    return Seconds(total_s)


def positive_duration(given: object) -> Seconds:
    """As `duration`, above zero (the relay counts whole milliseconds)."""
    value = duration(given)
    if value < 0.001:
        raise ValueError(f"{shown(given)} is too short: at least 1ms")
    return value


def check_ttl(given: object) -> Seconds:
    """As `duration`, in what makes sense for a check that is renewed three times within it."""
    value = duration(given)
    least, most = _CHECK_TTL_S
    if not least <= value <= most:
        raise ValueError(f"{shown(given)} is out of range: {least}s to {format_duration(most)}")
    return value


def forget_after(given: object) -> Seconds:
    """As `duration`, at least a minute, which is Consul's own least."""
    value = duration(given)
    if value < 60:
        raise ValueError(f"{shown(given)} is too short: at least 1m")
    return value


def keepalive(given: object) -> Seconds:
    """As `duration`, in what the kernel takes for TCP_KEEPIDLE."""
    value = duration(given)
    least, most = _KEEPALIVE_S
    if not least <= value <= most or value % 1:
        raise ValueError(f"{shown(given)} is out of range: whole seconds from {least}s to {most}s")
    return value


def user_timeout(given: object) -> Seconds:
    """As `positive_duration`, in what the kernel takes for TCP_USER_TIMEOUT."""
    value = positive_duration(given)
    if value > _USER_TIMEOUT_S:
        raise ValueError(f"{shown(given)} is out of range: at most {format_duration(_USER_TIMEOUT_S)}")
    return value


def format_duration(seconds: float) -> str:
    """The shortest text that `duration` reads as the same number of milliseconds."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    text = ""
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            text += f"{count}{unit}"
    return text


def size(given: object) -> Bytes:
    """`64KiB` `1MiB` (powers of 1024), `64kB` `1MB` (powers of 1000), `512B`. Raises ValueError."""
    if isinstance(given, int) and not isinstance(given, bool):
        raise ValueError(f"a size needs a unit: write {given}B or {max(1, given // 1024)}KiB")  # noqa: TRY004
    found = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise ValueError(f"expected a size such as 64KiB or 1MiB, got {shown(given)}")
    value = int(found[1]) * _UNIT_BYTES[found[2]]
    if not 1024 <= value <= 2**30:
        raise ValueError(f"{shown(given)} is out of range: 1KiB to 1GiB")
    return Bytes(value)


def format_size(count: int) -> str:
    """In the largest unit that gives a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _UNIT_BYTES[unit] == 0:
            return f"{count // _UNIT_BYTES[unit]}{unit}"
    return f"{count}B"


def percentage(given: object) -> float:
    """`50%` as 0.5, above 0 and at most 100. Raises ValueError."""
    found = _PERCENTAGE.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise ValueError(f"expected a percentage such as 50%, got {shown(given)}")
    value = float(found[1])
    if not 0 < value <= 100:
        raise ValueError(f"{given} is out of range: above 0% and at most 100%")
    return value / 100


def text(given: object) -> str:
    """Raises ValueError for anything but text."""
    if not isinstance(given, str):
        raise ValueError(f"expected text, got {shown(given)}")  # noqa: TRY004
    return given


def file_name(given: object) -> str:
    """Raises ValueError for what the system takes for no path."""
    written = text(given)
    if not written or "\0" in written:
        raise ValueError("expected the path of a file or folder")
    return written


def url(given: object) -> str:
    """An http or https URL with a host and without credentials. Raises ValueError."""
    written = text(given)
    try:
        parts = urlsplit(written)
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError as error:
        raise ValueError(f"{_shown_url(written)} is no URL: {error}") from error
    if not well or any(letter.isspace() for letter in written):
        raise ValueError(f"expected http://host or https://host, got {_shown_url(written)}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not stand in a URL: it is shown in logs")
    return written


def _shown_url(written: str) -> str:
    return shown(redacted_url(written))


def _host_port(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"expected host:port or unix:/path, got {shown(given)}")  # noqa: TRY004
    return given


def address(given: object) -> Address:
    """A place to bind. Raises ValueError."""
    return _plain(lambda: parse_address(_host_port(given)))


def target(given: object) -> Address | HostName:
    """A place to dial. Raises ValueError."""
    found = _plain(lambda: parse_target(_host_port(given)))
    if isinstance(found, HostName) or found.family != "unix":
        if found.port == 0:
            raise ValueError("port 0 cannot be dialled")
        if isinstance(found, Address) and found.is_wildcard:
            raise ValueError(f"{found.host} is every address of this machine and cannot be dialled")
    return found


def source_ip(given: object) -> str:
    """A local IP literal to dial from. Raises ValueError."""
    try:
        return normalise_ip(text(given))
    except AddressError as error:
        raise ValueError(f"{shown(given)} is not an IP address such as 10.0.0.5 or 2001:db8::5") from error


def name_server(given: object) -> tuple[str, int]:
    """Where a DNS server is: an IP literal, with a port if it is not 53. Raises ValueError."""
    written = text(given)
    try:
        return normalise_ip(written), 53
    except AddressError:
        found = _plain(lambda: parse_target(written))
    if isinstance(found, HostName) or found.family == "unix":
        raise ValueError(f"{shown(given)} is not an IP address such as 10.0.0.5 or [2001:db8::5]:5353")
    if found.port == 0:
        raise ValueError("port 0 cannot be asked")
    return found.host, found.port


def format_name_server(server: tuple[str, int]) -> str:
    """As `name_server` reads it."""
    return str(ip_address(*server))


def domain_name(given: object) -> str:
    """A name to ask DNS about; with a trailing dot it is absolute. Raises ValueError."""
    written = text(given)
    found = _plain(lambda: parse_target(f"{written}:1")) if ":" not in written else None
    if not isinstance(found, HostName):
        raise ValueError(f"expected a DNS name, got {shown(given)}")  # noqa: TRY004 - pydantic takes ValueError
    return written


def advertised_host(given: object) -> str:
    """An IP literal that others can dial, or a host name. Raises ValueError."""
    written = text(given)
    bare = written[1:-1] if written.startswith("[") and written.endswith("]") else written
    host = f"[{bare}]" if ":" in bare else bare
    try:
        found = parse_target(f"{host}:1")
    except AddressError as error:
        raise ValueError(f"{shown(given)} is neither an IP address nor a host name") from error
    if isinstance(found, HostName):
        return found.name
    if found.is_wildcard:
        raise ValueError(f"{found.host} is every address of this machine: nobody can dial it")
    return found.host


def network(given: object) -> Network:
    """A CIDR, or an address for itself alone; a mapped IPv4 network becomes IPv4. Raises ValueError."""
    written = text(given)
    try:
        found = ip_network(written)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(
                f"{written!r} has bits set after its prefix (did you mean '{ip_network(written, strict=False)}'?)"
            ) from error
        raise ValueError(f"{written!r} is not a CIDR such as 10.0.0.0/8") from error
    if found.version == 6 and found.prefixlen >= 96 and found.network_address.ipv4_mapped is not None:
        return ip_network(f"{found.network_address.ipv4_mapped}/{found.prefixlen - 96}")
    return found


def _plain(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except AddressError as error:
        raise ValueError(str(error)) from error


def shown(given: object) -> str:
    """A value as an error names it: short, on one line."""
    if given is None:
        return "null"
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, dict):
        return "a mapping"
    if isinstance(given, list):
        return "a list"
    written = repr(str(given)) if isinstance(given, str) else str(given)
    return written if len(written) <= 60 else f"{written[:56]}...{written[-1]}"
