"""The one HTTP client session of the process, and bounded reading of what it brings.

No limit on connections: each watch holds one, and aiohttp's default of a hundred would let the next one wait for ever.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from lbproxy.domain.errors import RegistryError
from lbproxy.wire.lookup import Lookup, Resolve
from lbproxy.wire.urls import redacted

CONNECT_TIMEOUT_S: Final = 3.0
# A page of maintenance asks for an hour, and the registry is back in a minute.
RETRY_AFTER_MOST_S: Final = 300
SHOWN: Final = 200  # characters of what others say
MAX_BODY_BYTES: Final = 32 << 20  # 10,000 endpoints of Consul's verbose JSON are 15 MiB


class HttpClient:
    """Owns the session from its first use to `close`. Neither proxies nor credentials from the environment are used: where a registry
    is, the configuration says. `resolve` is asked for the addresses of hosts (None: the system, in a thread)."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """To be asked for within the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    ttl_dns_cache=30,
                    resolver=None if self._resolve is None else Lookup(self._resolve),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=30, sock_connect=CONNECT_TIMEOUT_S),
                headers={"User-Agent": "lbproxy"},
            )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def went_wrong(error: BaseException) -> str:
    """One line on why there was no answer: of a connection that was refused the system's word, not aiohttp's around it. Of
    a URL, which aiohttp names in some of its errors, without what is not to be shown."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "cannot connect: nobody answers"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{error.host} does not resolve: {error.os_error.strerror}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number = error.os_error.errno
        return f"cannot connect: {os.strerror(number) if number else error.os_error}"
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return redacted(" ".join(text.split()))[:SHOWN] or type(error).__name__


async def read_json(response: aiohttp.ClientResponse, limit_bytes: int = MAX_BODY_BYTES) -> Any:
    """The whole body as JSON, whatever its content type says. Raises RegistryError for a body that is too long or no JSON; what goes
    wrong on the way (aiohttp.ClientError, TimeoutError) is the caller's."""
    return parse_json(await read_body(response, limit_bytes))


async def read_body(response: aiohttp.ClientResponse, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, unpacked. Raises as `read_json`."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise RegistryError(f"an answer of more than {limit_bytes} bytes")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Raises RegistryError for what is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"the answer is no JSON: {error}") from error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for (RFC 9110, 10.2.3), up to five minutes; a date counts from the answer's own `Date`, so that the clocks
    need not agree. None where it says nothing to be understood."""
    given = headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return float(min(int(given[:9]), RETRY_AFTER_MOST_S))
    until, now = http_date(given), http_date(headers.get("Date", ""))
    if until is None or now is None:
        return None
    return min(max(0.0, until - now), float(RETRY_AFTER_MOST_S))


def http_date(text: str) -> float | None:
    """The time of an HTTP date in seconds since 1970, or None."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
