"""A registry of Kubernetes' that asks a loopback API server, for one test."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.discovery.kubernetes.registry import KubernetesRegistry
from lbproxy.wire.http import HttpClient
from tests.discovery.kubernetes.api_server import ApiServer
from tests.patience import WITHIN_S


@asynccontextmanager
async def following(server: ApiServer, **options: Any) -> AsyncIterator[KubernetesRegistry]:
    given = KubernetesOptions("web", "shop", address=server.url, timeout_s=20.0)
    http = HttpClient()
    registry = KubernetesRegistry(replace(given, **options), http, time.monotonic, random.Random(1))
    try:
        async with asyncio.timeout(WITHIN_S):
            yield registry
    finally:
        await registry.close()
        await http.close()


def hosts(answer: Answer) -> list[str]:
    return [candidate.host for candidate in answer.candidates]


async def until(registry: KubernetesRegistry, wanted: Callable[[Answer], bool]) -> Answer:
    while True:
        answer = await registry.next()
        if wanted(answer):
            return answer
