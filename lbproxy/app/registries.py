"""Which registry an upstream's source asks, made from the options of its kind. Each kind is imported when it is first used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lbproxy.discovery.contract import Registry
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import HttpClient

# ruff: noqa: PLC0415 - imported when first used is the point of this file


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
        case EtcdOptions():
            from lbproxy.discovery.etcd.registry import EtcdRegistry

            return EtcdRegistry(options, means.http, means.clock, means.rng)
        case KubernetesOptions():
            from lbproxy.discovery.kubernetes.registry import KubernetesRegistry

            return KubernetesRegistry(options, means.http, means.clock, means.rng)
    raise TypeError(f"no registry for {type(options).__name__}")
