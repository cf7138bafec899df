"""What tests of the Consul registry make, and read of its answers."""

from __future__ import annotations

from collections.abc import Callable

from lbproxy.discovery.consul.registry import ConsulRegistry
from lbproxy.discovery.contract import Answer

Make = Callable[..., ConsulRegistry]


def ports(answer: Answer) -> list[int]:
    return [each.port for each in answer.candidates]
