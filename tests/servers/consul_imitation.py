"""A loopback imitation of a Consul agent, for what a real one (or its free edition, or its version 1.8) cannot be made to show.

It keeps Consul's rules for blocking queries, and misbehaves when told to: a `Fault` answers in its place. Runs on the test's own loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

Fault = Callable[["ConsulImitation", web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]

DEFAULT_WAIT_S: Final = 300.0


def instance(port: int, status: str = "passing", **service: Any) -> Json:
    """An entry of /v1/health/service, for an instance on 127.0.0.1."""
    return {
        "Node": {
            "Node": "one",
            "Address": "127.0.0.1",
            "Datacenter": "dc1",
            "TaggedAddresses": None,
            "Meta": None,
        },
        "Service": {
            "ID": f"web-{port}",
            "Service": "web",
            "Tags": [],
            "Address": "127.0.0.1",
            "Meta": None,
            "Port": port,
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": [
            {
                "Node": "one",
                "CheckID": f"c-{port}",
                "Name": "tcp",
                "Status": status,
                "Notes": "",
                "Output": "",
            }
        ],
    }


class ConsulImitation:
    """What it would answer: `instances` at `index`, with `headers` beside Consul's usual ones."""

    def __init__(self) -> None:
        self.instances: list[Json] = []
        self.index = 10
        self.headers: dict[str, str] = {}
        self.fault: Fault | None = None
        self.nodes: list[Json] = [{"Node": "one"}]
        # To what /v1/internal/acl/authorize is asked; a number: the status of a refusal.
        self.allowed: bool | int = 401
        self.requests: list[web.Request] = []
        self.address = ""
        self.question = asyncio.Event()  # set with each question; a new one then
        self._news = asyncio.Event()

    @property
    def asked(self) -> list[Mapping[str, str]]:
        """The parameters of every question about instances so far."""
        return [each.query for each in self.requests if "/health/service/" in each.path]

    def wake(self) -> None:
        """Let every waiting question look again."""
        self._news.set()
        self._news = asyncio.Event()

    def change(self, *instances: Json) -> None:
        self.instances = list(instances)
        self.index += 1
        self.wake()

    def trouble(self, fault: Fault | None) -> None:
        """From now on every question, also those that wait, is answered by the fault; None: all is well again."""
        self.fault = fault
        self.wake()

    def forget(self) -> None:
        """As an agent that was started again with nothing on disk."""
        self.instances = []
        self.index = 5
        self.wake()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.question.set()
        self.question = asyncio.Event()
        index = int(request.query.get("index", "0"))
        wait_s = float(request.query.get("wait", f"{DEFAULT_WAIT_S * 1000}ms").removesuffix("ms")) / 1000
        if index > 0:
            deadline = asyncio.get_running_loop().time() + wait_s
            while self.fault is None and index >= self.index:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._news.wait()
                except TimeoutError:
                    break
        if self.fault is not None:
            return await self.fault(self, request)
        return self.reply(self.instances)

    def reply(self, said: object, **headers: str) -> web.Response:
        """200 with Consul's headers; a keyword `X_Consul_Index` stands in for one."""
        told = {
            "X-Consul-Index": str(self.index),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            **self.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return web.Response(text=json.dumps(said), content_type="application/json", headers=told)

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.allowed is True or self.allowed is False:
            return web.json_response([{**each, "Allow": self.allowed} for each in await request.json()])
        return web.Response(status=self.allowed, text="no")

    async def _catalog(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return web.json_response(self.nodes)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/health/service/{name}", self.answer)
        app.router.add_get("/v1/query/{name}/execute", self.answer)
        app.router.add_post("/v1/internal/acl/authorize", self._authorize)
        app.router.add_get("/v1/catalog/nodes", self._catalog)
        return app


@asynccontextmanager
async def consul_imitation(path: str | None = None) -> AsyncIterator[ConsulImitation]:
    """Serve one on a loopback port, or on a unix socket."""
    imitation = ConsulImitation()
    runner = web.AppRunner(
        imitation.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        if path is None:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            imitation.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        else:
            await web.UnixSite(runner, path).start()
            imitation.address = f"unix:{path}"
        yield imitation
    finally:
        imitation.trouble(refuse(503))
        await runner.cleanup()


# -- faults


def refuse(status: int, text: str = "no", **headers: str) -> Fault:
    """An error status, at once."""

    async def fault(_: ConsulImitation, __: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status,
            text=text,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return fault


def say(text: str) -> Fault:
    """200 with Consul's headers and any text."""

    async def fault(imitation: ConsulImitation, _: web.Request) -> web.StreamResponse:
        found = imitation.reply([])
        found.text = text
        return found

    return fault


def with_headers(**headers: str) -> Fault:
    """A good answer with a header that is not."""

    async def fault(imitation: ConsulImitation, _: web.Request) -> web.StreamResponse:
        return imitation.reply(imitation.instances, **headers)

    return fault


def alternating() -> Fault:
    """Empty and full in turn, with the same index (seen of stale reads in consul-template 442)."""
    turn = 0

    async def fault(imitation: ConsulImitation, _: web.Request) -> web.StreamResponse:
        nonlocal turn
        turn += 1
        return imitation.reply(imitation.instances if turn % 2 == 0 else [])

    return fault


def empty() -> Fault:
    """200 and an empty list, as of servers that lag behind; a consistent read has the truth."""

    async def fault(imitation: ConsulImitation, request: web.Request) -> web.StreamResponse:
        return imitation.reply(imitation.instances if "consistent" in request.query else [])

    return fault


async def cut_short(imitation: ConsulImitation, request: web.Request) -> web.StreamResponse:
    """The head, half of the body, and the end of the connection."""
    whole = json.dumps(imitation.instances).encode()
    response = web.StreamResponse(
        headers={"X-Consul-Index": str(imitation.index), "Content-Length": str(len(whole))}
    )
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def hang_up(_: ConsulImitation, request: web.Request) -> web.StreamResponse:
    """The end of the connection in place of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def keep_silent(_: ConsulImitation, __: web.Request) -> web.StreamResponse:
    """Nothing, for as long as the client waits."""
    await asyncio.Event().wait()
    raise AssertionError


async def trickle(imitation: ConsulImitation, request: web.Request) -> web.StreamResponse:
    """A good answer at one byte a second."""
    whole = json.dumps(imitation.instances).encode()
    response = web.StreamResponse(
        headers={"X-Consul-Index": str(imitation.index), "Content-Length": str(len(whole))}
    )
    await response.prepare(request)
    for at in range(len(whole)):
        await response.write(whole[at : at + 1])
        await asyncio.sleep(1)
    return response
