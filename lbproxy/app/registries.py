"""Which registry an upstream's source asks, made from the options of its kind. Each kind is imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lbproxy.config.options import Configuration
from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.discovery.contract import Registry
from lbproxy.discovery.dns.options import DnsOptions
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.discovery.file.options import FileOptions
from lbproxy.discovery.http.options import HttpOptions
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.discovery.push.leases import Leases
from lbproxy.discovery.push.options import PushOptions
from lbproxy.discovery.push.registry import PushRegistry
from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import HttpClient

# ruff: noqa: PLC0415 - imported when first used is the point of this file


@dataclass(frozen=True, slots=True)
class Means:
    """What registries work with. `clock` gives monotonic seconds; `leases` are those of the upstream that asks."""

    http: HttpClient
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    rng: Random
    leases: Leases


def prepare(configuration: Configuration) -> None:
    """Import beforehand, in a thread, what would hold the loop for a tenth of a second at a reload: py-consul brings requests."""
    kinds = {type(each.registry) for one in configuration.upstreams.values() for each in one.discovery}
    if ConsulOptions in kinds:
        importlib.import_module("lbproxy.discovery.consul.registry")


def make_registry(options: object, means: Means) -> Registry:
    """Raises TypeError for options of no kind known here."""
    match options:
        case ConsulOptions():
            from lbproxy.discovery.consul.registry import ConsulRegistry
            from lbproxy.wire.consul import ConsulClient

            return ConsulRegistry(options, ConsulClient(options.access, means.http), means.sleep, means.rng)
        case HttpOptions():
            from lbproxy.discovery.http.registry import HttpRegistry

            return HttpRegistry(options, means.http, means.sleep, means.rng)
        case PushOptions():
            return PushRegistry(means.leases, means.clock, means.sleep)
        case DnsOptions():
            from lbproxy.discovery.dns.registry import DnsRegistry
            from lbproxy.wire.nameservers import NameServers
            from lbproxy.wire.records import RecordResolver

            resolver = RecordResolver(
                NameServers(options.servers, timeout_s=options.timeout_s), options.timeout_s
            )
            return DnsRegistry(options, resolver, means.clock, means.sleep, means.rng)
        case FileOptions():
            from lbproxy.discovery.file.registry import FileRegistry

            return FileRegistry(options, means.clock)
        case EtcdOptions():
            from lbproxy.discovery.etcd.registry import EtcdRegistry

            return EtcdRegistry(options, means.http, means.clock, means.rng)
        case KubernetesOptions():
            from lbproxy.discovery.kubernetes.registry import KubernetesRegistry

            return KubernetesRegistry(options, means.http, means.clock, means.rng)
        case ZooKeeperOptions():
            from lbproxy.discovery.zookeeper.registry import ZooKeeperRegistry

            return ZooKeeperRegistry(options)
        case _:
            raise TypeError(f"no registry for {type(options).__name__}")
