"""Which registry an upstream's source asks, made from the options of its kind. Each kind is imported when it is first used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lbproxy.discovery.contract import Registry
from lbproxy.discovery.dns.options import DnsOptions
from lbproxy.discovery.file.options import FileOptions
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import HttpClient


@dataclass(frozen=True, slots=True)
class Means:
    """What registries work with. `clock` gives monotonic seconds."""

    http: HttpClient
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    rng: Random


def make_registry(options: object, means: Means) -> Registry:
    """Raises TypeError for options of no kind known here."""
    match options:
        case DnsOptions():
            from lbproxy.discovery.dns.registry import DnsRegistry  # noqa: PLC0415
            from lbproxy.wire.nameservers import NameServers  # noqa: PLC0415
            from lbproxy.wire.records import RecordResolver  # noqa: PLC0415

            resolver = RecordResolver(NameServers(options.servers), options.timeout_s)
            return DnsRegistry(options, resolver, means.clock, means.sleep, means.rng)
        case FileOptions():
            from lbproxy.discovery.file.registry import FileRegistry  # noqa: PLC0415

            return FileRegistry(options, means.clock)
        case _:
            raise TypeError(f"no registry for {type(options).__name__}")
