"""Who may come in: address rules, and how many at once.

Address rules concern IP clients; whoever can open a unix socket was already admitted by its file permissions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from lbproxy.proxy.options import ListenerOptions, Network


class NetworkSet:
    """CIDRs as integers, by family and prefix length: a lookup costs one mask and one hash a distinct length."""

    __slots__ = ("_tables",)

    def __init__(self, networks: Iterable[Network]) -> None:
        tables: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            tables[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)
        self._tables = {version: tuple(table.items()) for version, table in tables.items()}

    def __contains__(self, host: str) -> bool:
        """`host` is a normalised IP literal (a zone id is ignored)."""
        version, number = parse_ip(host)
        return any((number >> shift) in networks for shift, networks in self._tables[version])


def parse_ip(host: str) -> tuple[int, int]:
    """(4 or 6, the address as an integer)."""
    if ":" in host:
        return 6, int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))
    return 4, int.from_bytes(socket.inet_aton(host))


class AddressRules:
    """`deny` is asked first; an empty `allow` means everyone else."""

    __slots__ = ("_allow", "_deny")

    def __init__(self, options: ListenerOptions) -> None:
        self._allow = NetworkSet(options.allow) if options.allow else None
        self._deny = NetworkSet(options.deny) if options.deny else None

    @property
    def open_to_all(self) -> bool:
        return self._allow is None and self._deny is None

    def admits(self, host: str) -> bool:
        if self._deny is not None and host in self._deny:
            return False
        return self._allow is None or host in self._allow


class Capacity:
    """The process's bound on sessions. A listener that meets it pauses accepting and is called back when there is room."""

    __slots__ = ("_waiting", "active", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self._waiting: dict[Callable[[], None], None] = {}

    def take(self) -> None:
        self.active += 1

    def give_back(self) -> None:
        self.active -= 1
        if self._waiting and self.active < self.limit:
            waiting, self._waiting = self._waiting, {}
            for resume in waiting:
                resume()

    def when_free(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, as soon as a session has ended."""
        self._waiting[resume] = None

    def forget(self, resume: Callable[[], None]) -> None:
        self._waiting.pop(resume, None)
