"""Whom names are asked of, and which absolute names a written one may mean: resolv.conf(5), or servers of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.resolver

from lbproxy.domain.errors import ResolveError

EDNS_BYTES: Final = 1232  # fits into every path's packets: DNS Flag Day 2020


class NameServers:
    """The `given` servers (IP literal, port), or else the system's, read again when resolv.conf has changed. `search` counts beside
    given servers only. Opens no socket."""

    def __init__(
        self,
        given: tuple[tuple[str, int], ...] = (),
        *,
        search: tuple[str, ...] = (),
        resolv_conf_path: Path = Path("/etc/resolv.conf"),
        timeout_s: float = 5.0,
    ) -> None:
        """A question that may take `timeout_s` reaches every server twice within it, should the others be silent."""
        self._timeout_s = timeout_s
        self._path = resolv_conf_path
        self._stamp: tuple[int, int, int] | None = None
        self._system: dns.asyncresolver.Resolver | None = None
        self._given = self._hasty(_of(given, search)) if given else None

    def resolver(self, name: str) -> dns.asyncresolver.Resolver:
        """Whom to ask about `name`. Raises ResolveError when resolv.conf cannot be read."""
        if self._given is not None:
            return self._given
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._system is None or stamp != self._stamp:
                self._system = self._hasty(_read(self._path))
                self._stamp = stamp
        except (OSError, ValueError, dns.exception.DNSException) as error:
            raise ResolveError(name, f"{self._path}: {error}", retryable=True) from error
        return self._system

    def _hasty(self, resolver: dns.asyncresolver.Resolver) -> dns.asyncresolver.Resolver:
        # Else the first of two servers, if silent, would take all of a short time for itself. `timeout:0` means 1 s to the C library.
        resolver.timeout = min(resolver.timeout or 1.0, self._timeout_s / (2 * len(resolver.nameservers)))
        return resolver


def _read(path: Path) -> dns.asyncresolver.Resolver:
    """What resolv.conf says; where it names no server, this machine's is meant. Raises OSError, ValueError, DNSException."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            resolver.read_resolv_conf(file)
        except dns.resolver.NoResolverConfiguration:
            resolver.nameservers = ["127.0.0.1"]
    resolver.use_edns(0, 0, EDNS_BYTES)
    return resolver


def _of(servers: tuple[tuple[str, int], ...], search: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in servers]
    resolver.domain = dns.name.root
    resolver.search = [dns.name.from_text(suffix) for suffix in search]
    resolver.use_edns(0, 0, EDNS_BYTES)
    return resolver


def candidates(resolver: dns.asyncresolver.Resolver, name: str) -> Iterator[dns.name.Name]:
    """The absolute names to try, by the rules of resolv.conf(5). Ours, and not dnspython's, because both families must be asked
    of one name: a server that wrongly denies a name for AAAA would else send that half to the next search domain."""
    if name.endswith("."):
        yield dns.name.from_text(name)
        return
    relative = dns.name.from_text(name, origin=None)
    absolute = relative.concatenate(dns.name.root)
    domains = resolver.search or ([] if resolver.domain == dns.name.root else [resolver.domain])
    ndots = 1 if resolver.ndots is None else resolver.ndots
    absolute_first = len(relative) > ndots
    if absolute_first:
        yield absolute
    for domain in domains:
        with contextlib.suppress(dns.name.NameTooLong):  # then there can be no such name
            yield relative.concatenate(domain)
    if not absolute_first:
        yield absolute


def refuse_part(response: dns.message.Message) -> None:
    """Raises Truncated for an answer that is cut off over TCP, too, where nothing more can be had: a part is no answer."""
    if response.flags & dns.flags.TC:
        raise dns.message.Truncated(message=response)  # type: ignore[no-untyped-call]


def in_words(error: Exception) -> str:
    """Why a question got no answer, on one line."""
    if isinstance(error, dns.exception.Timeout):
        return "the name servers do not answer"
    if isinstance(error, dns.message.Truncated):
        return "the answer is cut off, by TCP, too"
    return " ".join(str(error).split()) or type(error).__name__
