"""The paths of the admin interface and what each one asks of the program. Shapes: `lbproxy.admin.shapes`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from lbproxy.admin import requests
from lbproxy.admin.contract import Operations, RenderMetrics
from lbproxy.admin.guards import Places
from lbproxy.admin.page import page_response
from lbproxy.admin.problems import ProblemError, Routine, answer

METRICS_WRITTEN_WITHIN_S: Final = 10.0


class PublicRoutes:
    """What scrapers and kubelets read: no token, nothing that changes anything."""

    def __init__(self, operations: Operations, metrics: RenderMetrics, renders: Places) -> None:
        self._operations = operations
        self._metrics = metrics
        self._renders = renders

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_readiness)

    async def _get_metrics(self, request: web.Request) -> web.StreamResponse:
        async with self._renders.one():
            pieces, content_type = await self._metrics(",".join(request.headers.getall("Accept", ())))
            response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
            response.content_length = sum(map(len, pieces))
            try:
                async with asyncio.timeout(METRICS_WRITTEN_WITHIN_S):
                    await _write(response, request, pieces)
            except (ConnectionError, TimeoutError):
                # The reader has gone or does not read: it gives its place back to the others.
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _get_health(self, _: web.Request) -> web.Response:
        return answer({"alive": True})

    async def _get_readiness(self, request: web.Request) -> web.Response:
        found = self._operations.readiness(strict=requests.flag(request, "strict"))
        return answer(
            {
                "ready": not found.reasons,
                "reasons": list(found.reasons),
                "warnings": list(found.warnings),
            },
            503 if found.reasons else 200,
        )


class ApiRoutes:
    """Everything else: `/` and `/api/v1/`."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def add_to(self, app: web.Application) -> None:
        get, post = app.router.add_get, app.router.add_post
        api = "/api/v1"
        endpoint = f"{api}/upstreams/{{name}}/endpoints/{{address}}"
        get("/", self._get_page)
        get(f"{api}/config", self._get_config)
        get(f"{api}/listeners", self._get_listeners)
        get(f"{api}/registrations", self._get_registrations)
        get(f"{api}/upstreams", self._get_upstreams)
        get(f"{api}/upstreams/{{name}}", self._get_upstream)
        get(f"{api}/sessions", self._get_sessions)
        app.router.add_put(endpoint, self._register)
        app.router.add_delete(endpoint, self._deregister)
        post(f"{endpoint}/drain", self._drain_endpoint)
        post(f"{endpoint}/undrain", self._undrain_endpoint)
        post(f"{endpoint}/weight", self._set_weight)
        post(f"{api}/upstreams/{{name}}/drain", self._drain_upstream)
        post(f"{api}/upstreams/{{name}}/undrain", self._undrain_upstream)
        post(f"{api}/upstreams/{{name}}/sources/{{source}}/obey", self._obey)
        post(f"{api}/drain", self._drain)
        post(f"{api}/reload", self._reload)
        app.router.add_delete(f"{api}/sessions/{{id}}", self._kill_session)

    # -- questions

    async def _get_page(self, _: web.Request) -> web.Response:
        return page_response()

    async def _get_config(self, _: web.Request) -> web.Response:
        return answer(self._operations.config())

    async def _get_listeners(self, request: web.Request) -> web.Response:
        return answer(_page_by_name(request, self._operations.listeners()))

    async def _get_registrations(self, request: web.Request) -> web.Response:
        return answer(_page_by_name(request, self._operations.registrations()))

    async def _get_upstreams(self, request: web.Request) -> web.Response:
        return answer(_page_by_name(request, self._operations.upstreams()))

    async def _get_upstream(self, request: web.Request) -> web.Response:
        limit, after = requests.page(request)
        return answer(self._operations.upstream(request.match_info["name"], limit=limit, after=after))

    async def _get_sessions(self, request: web.Request) -> web.Response:
        limit, after = requests.page(request)
        items, following = self._operations.sessions(
            limit=limit,
            after=requests.whole(after or "0", "after"),
            upstream=request.query.get("upstream"),
        )
        return answer({"items": list(items), "next": following})

    # -- orders

    async def _register(self, request: web.Request) -> web.Response:
        registration = requests.registration(await requests.json_object(request, *requests.REGISTRATION))
        name, address = _endpoint(request)
        try:
            lease, new = self._operations.register(name, address, registration)
        except ValueError as error:
            raise ProblemError(400, str(error)) from error
        return answer(lease, 201) if new else answer(lease, kind=Routine)

    async def _deregister(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        name, address = _endpoint(request)
        try:
            self._operations.deregister(name, address)
        except ValueError as error:
            raise ProblemError(400, str(error)) from error
        return answer({"deregistered": address})

    async def _drain_endpoint(self, request: web.Request) -> web.Response:
        deadline_s = requests.deadline(await requests.json_object(request, "deadline_s"))
        name, address = _endpoint(request)
        return answer(self._operations.drain_endpoint(name, address, deadline_s=deadline_s))

    async def _undrain_endpoint(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        return answer(self._operations.undrain_endpoint(*_endpoint(request)))

    async def _set_weight(self, request: web.Request) -> web.Response:
        weight = requests.weight(await requests.json_object(request, "weight"))
        name, address = _endpoint(request)
        try:
            return answer(self._operations.set_weight(name, address, weight))
        except ValueError as error:
            raise ProblemError(400, f"weight: {error}") from error

    async def _drain_upstream(self, request: web.Request) -> web.Response:
        deadline_s = requests.deadline(await requests.json_object(request, "deadline_s"))
        return answer(self._operations.drain_upstream(request.match_info["name"], deadline_s=deadline_s))

    async def _undrain_upstream(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        return answer(self._operations.undrain_upstream(request.match_info["name"]))

    async def _obey(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        return answer(await self._operations.obey(request.match_info["name"], request.match_info["source"]))

    async def _drain(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        self._operations.drain()
        return answer({"draining": True}, 202)

    async def _reload(self, request: web.Request) -> web.Response:
        await requests.json_object(request)
        return answer(await self._operations.reload())

    async def _kill_session(self, request: web.Request) -> web.Response:
        session = requests.whole(request.match_info["id"], "the session's id")
        self._operations.kill_session(session)
        return answer({"killed": session})


async def _write(response: web.StreamResponse, request: web.Request, pieces: Sequence[bytes]) -> None:
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in pieces:
            await response.write(piece)
    await response.write_eof()


def _endpoint(request: web.Request) -> tuple[str, str]:
    return request.match_info["name"], request.match_info["address"]


def _page_by_name(request: web.Request, items: Sequence[Any]) -> dict[str, Any]:
    """A page of items in their own order. `after` names the last item of the page before."""
    limit, after = requests.page(request)
    start = 0
    if after:
        names = [item["name"] for item in items]
        if after not in names:
            raise ProblemError(400, "after: there is nothing of that name any more; start again")
        start = names.index(after) + 1
    shown = items[start : start + limit]
    more = start + limit < len(items)
    return {"items": list(shown), "next": shown[-1]["name"] if more else None}
