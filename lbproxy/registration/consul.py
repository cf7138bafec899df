"""Consul's agent: three PUTs over the client of `wire`."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote

from lbproxy.domain.errors import RegistryError
from lbproxy.registration.contract import Forgotten
from lbproxy.registration.definition import Definition, Verdict
from lbproxy.wire.consul import ConsulClient, ConsulRefused

STEP_WITHIN_S: Final = 3.0
"""For each call: the agent is on this machine, and answers in about a millisecond."""

_AGENT: Final = "/v1/agent"


class ConsulAgent:
    """An `Agent`. The client is the caller's."""

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def register(self, definition: Definition, verdict: Verdict) -> None:
        await self._put("/service/register", definition.payload(verdict))

    async def update(self, check_id: str, verdict: Verdict) -> None:
        # An unknown check is a 404 since Consul 1.10 and was a 500 before; registering again, where a 500 meant something else,
        # does no harm.
        body = {"Status": verdict.status, "Output": verdict.output}
        await self._put(f"/check/update/{quote(check_id, safe='')}", body, forgotten=frozenset({404, 500}))

    async def deregister(self, service_id: str) -> None:
        # 1.8 says 200 to an unknown service, later ones 404.
        path = f"/service/deregister/{quote(service_id, safe='')}"
        await self._put(path, None, forgotten=frozenset({404}))

    async def _put(self, path: str, body: object, *, forgotten: frozenset[int] = frozenset()) -> None:
        try:
            async with asyncio.timeout(STEP_WITHIN_S):
                await self._client.put(_AGENT + path, body=body)
        except ConsulRefused as error:
            if error.status in forgotten:
                raise Forgotten(str(error)) from error
            raise
        except TimeoutError as error:
            raise RegistryError(f"the agent did not answer within {STEP_WITHIN_S:g} s") from error
