"""What is sent to Consul's agent, and what its answers mean; an imitation answers, where the real one has no such moods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from lbproxy.domain.errors import RegistryError
from lbproxy.registration import consul
from lbproxy.registration.consul import ConsulAgent
from lbproxy.registration.contract import Forgotten
from lbproxy.registration.definition import Definition, Verdict
from lbproxy.wire.consul import ConsulClient
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient
from lbproxy.wire.secrets import Secret
from tests.patience import WITHIN_S

WEB = Definition("web-::1-80", "web", "::1", 80)
WELL = Verdict("passing", "ready")
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def agent(answer: Answer) -> AsyncIterator[ConsulAgent]:
    """An agent of ours before a server that answers so."""
    runner = web.ServerRunner(web.Server(answer, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    http = HttpClient()
    client = ConsulClient(ConsulAccess(str(site.name), Secret(value="tok")), http)
    try:
        yield ConsulAgent(client)
    finally:
        await client.close()
        await http.close()
        await runner.cleanup()


async def test_each_step_is_one_request_as_consul_documents_it() -> None:
    seen: list[tuple[str, str, Any, str | None]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        body = await request.text()
        token = request.headers.get("X-Consul-Token")
        seen.append((request.method, str(request.rel_url.raw_path_qs), json.loads(body or "null"), token))
        return web.Response()

    async with agent(answer) as it:
        await it.register(WEB, WELL)
        await it.update(WEB.check_id, Verdict("critical", "draining"))
        await it.deregister(WEB.id)
    assert seen == [
        ("PUT", "/v1/agent/service/register", WEB.payload(WELL), "tok"),
        (
            "PUT",
            "/v1/agent/check/update/service%3Aweb-%3A%3A1-80",
            {"Status": "critical", "Output": "draining"},
            "tok",
        ),
        ("PUT", "/v1/agent/service/deregister/web-%3A%3A1-80", None, "tok"),
    ]


@pytest.mark.parametrize(
    ("status", "of_update", "of_deregister", "of_register"),
    [
        (404, Forgotten, Forgotten, RegistryError),
        (500, Forgotten, RegistryError, RegistryError),
        (403, RegistryError, RegistryError, RegistryError),
        (429, RegistryError, RegistryError, RegistryError),
        (301, RegistryError, RegistryError, RegistryError),
        (503, RegistryError, RegistryError, RegistryError),
    ],
)
async def test_a_status_means_forgotten_or_trouble(
    status: int,
    of_update: type[Exception],
    of_deregister: type[Exception],
    of_register: type[Exception],
) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text="no such luck", headers={"Location": "/elsewhere"})

    async with agent(answer) as it:
        for call, expected in (
            (it.update(WEB.check_id, WELL), of_update),
            (it.deregister(WEB.id), of_deregister),
            (it.register(WEB, WELL), of_register),
        ):
            with pytest.raises(RegistryError, match=str(status)) as caught:
                await call
            assert type(caught.value) is expected or expected is RegistryError
            assert isinstance(caught.value, Forgotten) == (expected is Forgotten)


async def _hang(_: web.BaseRequest) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _trickle(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"x")
    await asyncio.Event().wait()
    return response


async def _hang_up(request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _garbage(request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.write(b"\x00\xff\r\n\r\n")
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize("answer", [_hang, _trickle, _hang_up, _garbage])
async def test_an_agent_without_manners_is_an_error_within_the_bound(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "STEP_WITHIN_S", 0.2)
    async with agent(answer) as it, asyncio.timeout(WITHIN_S):
        for call in (it.register(WEB, WELL), it.update(WEB.check_id, WELL), it.deregister(WEB.id)):
            with pytest.raises(RegistryError):
                await call
