"""What this machine itself holds: whether an address is one of its own, and which process listens on a port."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lbproxy.domain.address import Address, SockAddress, ip_address, sockaddr

REMEMBERED_S: Final = 60.0  # interfaces come and go rarely
REMEMBERED: Final = 100_000
_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp


def socket_name(address: Address) -> SockAddress:
    """What `connect` and `bind` take, with the interface that a zone id names at present: Python drops a zone in the host. Raises
    OSError (ENODEV) when there is no such interface."""
    host, percent, zone = address.host.partition("%")
    if not percent or address.family != "inet6":
        return sockaddr(address)
    try:
        index = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
    return host, address.port, 0, index


def with_zone(host: str, scope: int) -> str:
    """An address as the kernel tells it, with its zone id where it has one."""
    return f"{host}%{socket.if_indextoname(scope)}" if scope else host


def is_local(ip: str) -> bool:
    """True when this machine has the address: the kernel binds to those only (no packet is sent)."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(socket_name(ip_address(ip, 0)))
    except OSError:
        return False
    return True


class Locals:
    """Remembers for a while which addresses are local: asking the kernel takes 13 µs, and a registry may name ten thousand."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, bool] = {}
        self._since = clock()

    def holds(self, ip: str) -> bool:
        """As `is_local`, of up to `REMEMBERED_S` ago."""
        now = self._clock()
        if now - self._since > REMEMBERED_S or len(self._known) > REMEMBERED:
            self._known.clear()
            self._since = now
        known = self._known.get(ip)
        if known is None:
            known = self._known[ip] = is_local(ip)
        return known


def port_holder(address: Address) -> str | None:
    """`name (pid N)` of a process that listens on the address's port, as far as /proc tells this user; None when unknown."""
    inodes = {inode for port, inode in _listening() if port == address.port}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, wanted):
            return f"{_name(process)} (pid {process.name})"
    return None


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        with os.scandir(process / "fd") as descriptors:
            return any(_target(entry.path) in wanted for entry in descriptors)
    except OSError:  # not ours to look into, or already gone
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - thousands of them
    except OSError:
        return ""


def _listening() -> Iterator[tuple[int, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        lines = path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else []
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                yield int(fields[1].rpartition(":")[2], 16), fields[9]
