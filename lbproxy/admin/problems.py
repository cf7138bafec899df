"""Answers: JSON, and problems as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from lbproxy.admin.shapes import Problem


class ProblemError(Exception):
    """Ends a request with this status. `detail` is for the client: it never holds what the client may not know."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


class Routine(web.Response):
    """The answer to what has changed nothing that is worth a line in the log, and comes by the thousand: a renewal."""


def answer(data: object, status: int = 200, kind: type[web.Response] = web.Response) -> web.Response:
    """JSON, one line, ended by a line feed for the sake of terminals."""
    return kind(text=f"{json.dumps(data)}\n", status=status, content_type="application/json")


def problem(error: ProblemError) -> web.Response:
    """The answer for a problem."""
    body: Problem = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
    }
    if error.detail:
        body["detail"] = error.detail
    if error.errors:
        body["errors"] = list(error.errors)
    return web.Response(
        text=f"{json.dumps(body)}\n",
        status=error.status,
        content_type="application/problem+json",
        headers=error.headers,
    )


def from_http(error: web.HTTPException) -> ProblemError:
    """What aiohttp raises by itself: an unknown path, a wrong method, a body that is too long."""
    headers: dict[str, Any] = {}
    if "Allow" in error.headers:
        headers["Allow"] = error.headers["Allow"]
    return ProblemError(error.status, headers=headers)
