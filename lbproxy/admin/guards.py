"""What stands before every request: the wall, the token, the browser's rules, the limits.

In this order: a request that is not allowed costs nothing more, a slow body holds no place, and whatever goes wrong behind the
wall ends as one problem for the client and one line in the log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from lbproxy.admin.contract import NotFound, Refused, Unacceptable
from lbproxy.admin.problems import ProblemError, Routine, from_http, problem
from lbproxy.admin.requests import BODY_WITHIN_S, read_body
from lbproxy.wire.secrets import Secret, SecretError

PUBLIC: Final = frozenset({"/metrics", "/healthz", "/readyz"})
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = logging.getLogger("lbproxy.admin")


class Places:
    """So many at a time; the others wait a little and are then told to come back."""

    def __init__(self, number: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(number)
        self._wait_s = wait_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises ProblemError 503 when none gets free in time."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise ProblemError(503, "too many requests at once", headers={"Retry-After": "1"}) from error
        try:
            yield
        finally:
            self._free.release()


@web.middleware
async def wall(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a problem; an exception that nobody foresaw is logged and answered with 500."""
    try:
        response = await handler(request)
    except ProblemError as error:
        response = problem(error)
    except NotFound as error:
        response = problem(ProblemError(404, str(error)))
    except Refused as error:
        response = problem(ProblemError(409, str(error), errors=error.errors))
    except Unacceptable as error:
        response = problem(ProblemError(422, str(error)))
    except web.HTTPException as error:
        response = problem(from_http(error))
    except Exception:
        log.exception("%s %s failed", request.method, request.rel_url.raw_path)
        response = problem(ProblemError(500))
    if not response.prepared:
        response.headers["Server"] = "lbproxy"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def guard(
    current: Callable[[], Secret | None],
    *,
    browsers: bool,
    places: Places,
    body_within_s: float = BODY_WITHIN_S,
) -> Middleware:
    """Token (`current` gives the one in force), browser rules, body and limit for all but the public paths. `browsers`: whether a browser can get here at all
    (over a unix socket it cannot)."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in PUBLIC:
            return await handler(request)
        token = current()
        by_header = token is not None and _authorised(request, token)
        if browsers and not by_header:
            _refuse_foreign(request, host_matters=token is None)
        await read_body(request, body_within_s)
        async with places.one():
            response = await handler(request)
        if request.method not in READING:
            log.log(
                logging.DEBUG if isinstance(response, Routine) else logging.INFO,
                "%s %s from %s: %d",
                request.method,
                request.rel_url.raw_path,
                request.remote or "unix",
                response.status,
            )
        return response

    return guarded


def _authorised(request: web.Request, token: Secret) -> bool:
    """True for `Bearer TOKEN`, False for Basic with the token as password: browsers ask for that and then send it by
    themselves, also when a foreign page makes them. Raises ProblemError 401, or 503 when the token cannot be read."""
    try:
        expected = token.reveal().encode()
    except SecretError as error:
        log.error("admin token: %s", error)  # noqa: TRY400  the message says all
        raise ProblemError(503, "the token cannot be read") from error
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = credentials.strip().encode("utf-8", "surrogateescape")
    basic = scheme.lower() == "basic"
    if basic:
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            given = b""
    if not expected or not hmac.compare_digest(given, expected) or not (basic or scheme.lower() == "bearer"):
        challenge = 'Bearer realm="lbproxy", Basic realm="lbproxy"'
        raise ProblemError(401, "this needs the admin token", headers={"WWW-Authenticate": challenge})
    return not basic


def _refuse_foreign(request: web.Request, *, host_matters: bool) -> None:
    """A page of another site must not use what its visitor's browser can reach (CSRF), not even by letting its own name resolve
    to us (DNS rebinding). Raises ProblemError 403."""
    host = request.headers.get("Host", "")
    if host_matters and host and not _is_ours(host):
        raise ProblemError(403, "without a token, the Host must be an IP address or localhost")
    if request.method in READING:
        return
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        raise ProblemError(403, "requests of other origins are refused")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise ProblemError(403, "requests of other sites are refused")


def _is_ours(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
