"""What a request may hold: bodies, query parameters and names, checked before anything acts on them."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final, NoReturn

from aiohttp import web

from lbproxy.admin.contract import Registration
from lbproxy.admin.problems import ProblemError

BODY_BYTES: Final = 64 * 1024
BODY_WITHIN_S: Final = 5.0
REGISTRATION: Final = ("lease_s", "weight", "zone", "priority", "max_connections", "metadata")
LEASE_S: Final = 30.0
LEASE_LEAST_S: Final = 1.0
LEASE_MOST_S: Final = 3600.0
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


def registration(body: dict[str, Any]) -> Registration:
    """An endpoint's own words. Raises ProblemError 400."""
    lease_s = body.get("lease_s", LEASE_S)
    if isinstance(lease_s, bool) or not isinstance(lease_s, int | float):
        raise ProblemError(400, "lease_s is a number of seconds")
    if not LEASE_LEAST_S <= lease_s <= LEASE_MOST_S:
        raise ProblemError(400, f"lease_s is from {LEASE_LEAST_S:g} to {LEASE_MOST_S:g} seconds")
    zone = body.get("zone")
    if zone is not None and not isinstance(zone, str):
        raise ProblemError(400, "zone is text or null")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ProblemError(400, "metadata is an object with texts in it")
    return Registration(
        float(lease_s),
        _number(body, "weight", 1),
        zone or None,
        _number(body, "priority", 0),
        None if body.get("max_connections") is None else _number(body, "max_connections", 0),
        metadata,
    )


def _number(body: dict[str, Any], key: str, default: int) -> int:
    value = body.get(key, default)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # JSON does not tell 3 from 3.0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProblemError(400, f"{key} is a whole number")
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
