"""A loopback API server that does with EndpointSlices what Kubernetes' does: versions, pages, watches, bookmarks, 410, tokens.

What it answers is modelled on the API's documentation ("Kubernetes API Concepts") and its objects on what a cluster shows.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Disturb = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def endpoint(address: str, **more: Any) -> Json:
    """One that is ready, unless `more` says otherwise."""
    pod = "web-" + address.replace(".", "-").replace(":", "-")
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "node-1",
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod, "uid": f"uid-of-{pod}"},
        "zone": "eu-1a",
        **more,
    }


def slice_of(name: str, *endpoints: Json | str, service: str = "web", **more: Any) -> Json:
    """A slice of a service with one port, http on 8080."""
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-of-{name}",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [endpoint(each) if isinstance(each, str) else each for each in endpoints],
        **more,
    }


class ApiServer:
    """`put`, `delete`: what happens to slices. `compact` forgets the events so far. `tokens` are the accepted ones, None: everybody is let
    in. `disturb` may answer a request instead. `asked` holds the query of each request."""

    def __init__(self) -> None:
        self.version = 100
        self.slices: dict[str, Json] = {}
        self.events: list[tuple[int, Json]] = []
        self.compacted = 100
        self.tokens: set[str] | None = None
        self.disturb: Disturb | None = None
        self.asked: list[Json] = []
        self.watching = 0
        self.url = ""
        self._changed = asyncio.Condition()
        self._cut = asyncio.Event()

    # -- what happens

    async def put(self, told: Json) -> None:
        kind = "MODIFIED" if told["metadata"]["name"] in self.slices else "ADDED"
        await self._happen(kind, told)
        self.slices[told["metadata"]["name"]] = self.events[-1][1]["object"]

    async def delete(self, name: str) -> None:
        await self._happen("DELETED", self.slices.pop(name))

    async def bookmark(self) -> None:
        self.version += 1
        told = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": self._marked({})}
        await self._tell("BOOKMARK", told)

    async def fail(self, status: Json) -> None:
        """An ERROR event in every watch."""
        self.version += 1
        await self._tell("ERROR", {"kind": "Status", "apiVersion": "v1", "status": "Failure", **status})

    def compact(self) -> None:
        self.compacted = self.version
        self.events.clear()

    def restore(self, version: int) -> None:
        """A cluster that was set back."""
        self.version = self.compacted = version
        self.events.clear()
        self.slices.clear()

    async def cut(self) -> None:
        """End every watch where it is."""
        cut, self._cut = self._cut, asyncio.Event()
        cut.set()
        async with self._changed:
            self._changed.notify_all()

    async def until_watched(self, count: int = 1) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.watching >= count)

    async def _until_after(self, version: int, cut: asyncio.Event) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: cut.is_set() or (self.events and self.events[-1][0] > version)
            )

    def _marked(self, metadata: Json) -> Json:
        return {**metadata, "resourceVersion": str(self.version)}

    async def _happen(self, kind: str, told: Json) -> None:
        self.version += 1
        told = copy.deepcopy(told)
        told["metadata"] = self._marked(told["metadata"])
        await self._tell(kind, told)

    async def _tell(self, kind: str, told: Json) -> None:
        async with self._changed:
            self.events.append((self.version, {"type": kind, "object": told}))
            self._changed.notify_all()

    # -- what it answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if self.disturb is not None:
            answer = await self.disturb(request)
            if answer is not None:
                return answer
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return refusal(401, "Unauthorized", "Unauthorized")
        if request.match_info["namespace"] != "shop":
            where = (
                f'cannot list resource "endpointslices" in the namespace "{request.match_info["namespace"]}"'
            )
            return refusal(403, "Forbidden", where)
        return await (self._watch(request) if request.query.get("watch") else self._list(request))

    async def _list(self, request: web.Request) -> web.Response:
        key, _, service = request.query["labelSelector"].partition("=")
        version, after = str(self.version), ""
        if following := request.query.get("continue"):
            version, after = json.loads(base64.b64decode(following))
            if int(version) < self.compacted:
                return refusal(410, "Expired", "The provided continue parameter is too old")
        chosen = sorted(
            name
            for name, each in self.slices.items()
            if each["metadata"]["labels"].get(key) == service and name > after
        )
        limit = int(request.query.get("limit", "0")) or len(chosen)
        page = [self.slices[name] for name in chosen[:limit]]
        metadata: Json = {"resourceVersion": version}
        if len(chosen) > limit:
            metadata["continue"] = base64.b64encode(
                json.dumps([version, chosen[limit - 1]]).encode()
            ).decode()
            metadata["remainingItemCount"] = len(chosen) - limit
        kind = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
        return web.json_response({**kind, "metadata": metadata, "items": page})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        seen, cut = int(request.query["resourceVersion"]), self._cut
        if seen < self.compacted:
            # A watch whose version is gone begins well and says so in an event.
            said = {"code": 410, "reason": "Expired", "message": f"too old resource version: {seen}"}
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", **said}
            return await stream_of(request, json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async with self._changed:
            self.watching += 1
            self._changed.notify_all()
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while not cut.is_set():
                    for version, event in [each for each in self.events if each[0] > seen]:
                        await response.write(json.dumps(event).encode() + b"\n")
                        seen = version
                    await self._until_after(seen, cut)
        except TimeoutError:
            pass  # as agreed
        finally:
            self.watching -= 1
        return response


def refusal(status: int, reason: str, message: str, **headers: str) -> web.Response:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return web.json_response({**said, "code": status}, status=status, headers=headers)


async def stream_of(request: web.Request, *pieces: bytes, cut: bool = False) -> web.StreamResponse:
    """A chunked answer of these pieces; `cut`: the connection ends without the last chunk."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    if cut and request.transport is not None:
        request.transport.abort()
    return response


@asynccontextmanager
async def api_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[ApiServer]:
    server = ApiServer()
    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await server.cut()
        await runner.cleanup()
