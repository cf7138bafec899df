"""The one HTTP client session of the process, and bounded reading of what it brings.

No limit on connections: each watch holds one, and aiohttp's default of a hundred would let the next one wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from lbproxy.domain.errors import RegistryError

CONNECT_TIMEOUT_S: Final = 3.0
RETRY_AFTER_MOST_S: Final = 3600
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_ITEMS_A_TURN: Final = 100  # of Consul's, about a millisecond
MAX_BODY_BYTES: Final = 32 << 20  # 10,000 endpoints of Consul's verbose JSON are 15 MiB


class HttpClient:
    """Owns the session from its first use to `close`. Neither proxies nor credentials from the environment are used: where a registry
    is, the configuration says."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """To be asked for within the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=30, sock_connect=CONNECT_TIMEOUT_S),
                headers={"User-Agent": "lbproxy"},
            )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def read_json(response: aiohttp.ClientResponse, limit_bytes: int = MAX_BODY_BYTES) -> Any:
    """The whole body as JSON, whatever its content type says. Raises RegistryError for a body that is too long or no JSON; what goes
    wrong on the way (aiohttp.ClientError, TimeoutError) is the caller's."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise RegistryError(f"an answer of more than {limit_bytes} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"the answer is no JSON: {error}") from error


async def read_json_list(response: aiohttp.ClientResponse, limit_bytes: int = MAX_BODY_BYTES) -> list[Any]:
    """As `read_json`, of a list, which may be long: its items are parsed a few at a time between turns of the loop. (One call of the
    parser holds the interpreter to its end, in a thread, too: 0.1 s for ten thousand instances of Consul's.)"""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise RegistryError(f"an answer of more than {limit_bytes} bytes")
    items: list[Any] = []
    try:
        text = body.decode()
        at = _after_space(text, 0)
        if text[at : at + 1] != "[":
            raise RegistryError("the answer is no JSON list")
        at = _after_space(text, at + 1)
        while text[at : at + 1] != "]":
            if items:
                if text[at : at + 1] != ",":
                    raise RegistryError(f"the answer is no JSON: no comma at character {at}")
                at = _after_space(text, at + 1)
            item, at = _DECODER.raw_decode(text, at)
            items.append(item)
            at = _after_space(text, at)
            if len(items) % _ITEMS_A_TURN == 0:
                await asyncio.sleep(0)
        if _after_space(text, at + 1) != len(text):
            raise RegistryError("the answer is no JSON: more text after its end")
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"the answer is no JSON: {error}") from error
    return items


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for (RFC 9110, 10.2.3), up to an hour; a date counts from the answer's own `Date`, so that the clocks
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
