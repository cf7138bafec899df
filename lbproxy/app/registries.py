"""Which registry an upstream's source asks, made from the options of its kind. Each kind is imported when it is first used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.discovery.contract import Registry
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
    if isinstance(options, ConsulOptions):
        return _consul(options, means)
    raise TypeError(f"no registry for {type(options).__name__}")


def _consul(options: ConsulOptions, means: Means) -> Registry:
    from lbproxy.discovery.consul.registry import ConsulRegistry  # noqa: PLC0415 - py-consul takes 10 MiB
    from lbproxy.wire.consul import ConsulClient  # noqa: PLC0415

    return ConsulRegistry(options, ConsulClient(options.access, means.http), means.sleep, means.rng)
