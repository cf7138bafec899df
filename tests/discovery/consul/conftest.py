"""An imitation of an agent, and registries that follow an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.discovery.consul.registry import ConsulRegistry
from lbproxy.wire.consul import ConsulClient
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient
from tests.discovery.consul.made import Make
from tests.servers.consul import Consul
from tests.servers.consul_imitation import ConsulImitation, consul_imitation


@pytest.fixture
async def imitation() -> AsyncIterator[ConsulImitation]:
    async with consul_imitation() as found:
        yield found


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """A registry for an agent, real or imitated; `access` are further ways to reach it."""
    http = HttpClient()
    made: list[ConsulRegistry] = []

    def registry(
        of: Consul | ConsulImitation, *, access: dict[str, Any] | None = None, **options: Any
    ) -> ConsulRegistry:
        reach = ConsulAccess(of.address, **(access or {}))
        options = {"service": "web", **options} if "query" not in options else options
        found = ConsulRegistry(
            ConsulOptions(access=reach, **options), ConsulClient(reach, http), asyncio.sleep, Random(1)
        )
        made.append(found)
        return found

    yield registry
    for each in made:
        await each.close()
    await http.close()
