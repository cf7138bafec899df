"""What a request may hold: bodies, query parameters and names, checked before anything acts on them."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final, NoReturn

from aiohttp import web

from lbproxy.admin.problems import ProblemError

BODY_BYTES: Final = 64 * 1024
BODY_WITHIN_S: Final = 5.0
PAGE: Final = 100
PAGE_MOST: Final = 500
"""Items a page: a thousand would hold the loop for some 5 ms while they are encoded."""

_ID_MOST: Final = 2**63 - 1


async def read_body(request: web.Request, within_s: float) -> bytes:
    """The whole body. Raises ProblemError 413 when it is too long, 408 when it takes too long."""
    if request.content_length is not None and request.content_length > BODY_BYTES:
        raise ProblemError(413, f"a body is at most {BODY_BYTES} bytes long")
    try:
        async with asyncio.timeout(within_s):
            return await request.read()
    except TimeoutError as error:
        raise ProblemError(
            408, f"the body did not arrive within {within_s:g} s", headers={"Connection": "close"}
        ) from error


async def json_object(request: web.Request, *keys: str) -> dict[str, Any]:
    """The body as an object with no keys but these; no body is an empty object. Raises ProblemError 400 or 415."""
    body = await request.read()  # has been read before: this returns it
    if not body:
        return {}
    if request.content_type != "application/json":
        raise ProblemError(415, "a body is application/json")
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "the body is not JSON") from error
    if not isinstance(value, dict):
        raise ProblemError(400, "the body is not a JSON object")
    for key in value:
        if key not in keys:
            raise ProblemError(400, f"unknown key {key[:64]!r}; known: {', '.join(keys) or 'none'}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def deadline(body: dict[str, Any]) -> float | None:
    """`deadline_s`: seconds, or null for none. Raises ProblemError 400."""
    value = body.get("deadline_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise ProblemError(400, "deadline_s is a number of seconds, 0 or more, or null")
    return float(value)


def weight(body: dict[str, Any]) -> int | None:
    """`weight`: a whole number, or None for "auto". Raises ProblemError 400."""
    value = body.get("weight")
    if value == "auto":
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # JSON does not tell 3 from 3.0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProblemError(400, 'weight is a whole number or "auto"')
    return value


def flag(request: web.Request, name: str) -> bool:
    """`?name` or `?name=1`; absent, `0` and `false` are no."""
    return request.query.get(name, "0").lower() not in {"0", "false"}


def page(request: web.Request) -> tuple[int, str]:
    """`limit` and `after` of the query. Raises ProblemError 400."""
    return (
        whole(request.query.get("limit", str(PAGE)), "limit", 1, PAGE_MOST),
        request.query.get("after", ""),
    )


def whole(text: str, name: str, least: int = 0, most: int = _ID_MOST) -> int:
    """A whole number in decimal digits. Raises ProblemError 400."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ProblemError(400, f"{name} is a whole number from {least} to {most}")
    return int(text)
