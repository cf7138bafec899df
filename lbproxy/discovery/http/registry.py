"""A list of endpoints behind a URL, asked for again and again. What the list may look like: `lbproxy.discovery.documents`."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.documents import read_document
from lbproxy.discovery.http.large import read_large
from lbproxy.discovery.http.options import HttpOptions
from lbproxy.discovery.http.validators import Validators
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import CONNECT_TIMEOUT_S, HttpClient, parse_json, read_body, retry_after_s, went_wrong
from lbproxy.wire.secrets import SecretError
from lbproxy.wire.tls import ClientTls
from lbproxy.wire.urls import redacted_url

# Of the interval, so that many instances that started together do not ask together for ever.
SPREAD: Final = 0.1
REDIRECTS: Final = 3
LARGE_BYTES: Final = 16 << 10  # more than this is not read in one step
# `_ask` has the whole question under a time-out of its own, which may be longer than the session's.
_NO_TOTAL: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
_REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})


class HttpRegistry:
    """A `Registry`. Owns nothing: the connections are the client's."""

    def __init__(
        self,
        options: HttpOptions,
        http: HttpClient,
        sleep: Callable[[float], Awaitable[None]],
        rng: Random,
    ) -> None:
        self._options = options
        self._http = http
        self._sleep = sleep
        self._rng = rng
        self._tls = ClientTls(options.tls) if options.url.startswith("https:") else None
        self._shown = redacted_url(options.url)
        self._known: _Known | None = None

    async def next(self) -> Answer:
        """The first time, and after an error: ask. Later: wait for the interval, and ask whether it has changed."""
        known, self._known = self._known, None
        if known is not None:
            spread = 1 + SPREAD * (2 * self._rng.random() - 1)
            try:
                await self._sleep(self._options.interval_s * spread)
            except asyncio.CancelledError:
                self._known = known
                raise
        self._known = await self._ask(known)
        return self._known.answer

    async def confirm(self) -> Answer:
        """The whole list once more, past every cache that can be told so."""
        return (await self._ask(None)).answer

    async def close(self) -> None:
        self._known = None

    async def _ask(self, known: _Known | None) -> _Known:
        """One question. Raises RegistryError."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._follow(known)
        except RegistryError as error:
            raise RegistryError(f"{self._shown}: {error}", retry_after_s=error.retry_after_s) from error
        except aiohttp.ConnectionTimeoutError as error:  # a TimeoutError, too, and sooner than ours
            raise RegistryError(f"{self._shown}: {went_wrong(error)}") from error
        except TimeoutError as error:
            raise RegistryError(
                f"{self._shown}: no full answer within {self._options.timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, SecretError, ValueError) as error:
            raise RegistryError(f"{self._shown}: {went_wrong(error)}") from error

    async def _follow(self, known: _Known | None) -> _Known:
        url = self._options.url
        for _ in range(REDIRECTS + 1):
            found = await self._exchange(url, known)
            if isinstance(found, _Known):
                return found
            url = found
        raise RegistryError(f"more than {REDIRECTS} redirects")

    async def _exchange(self, url: str, known: _Known | None) -> _Known | str:
        """What was answered, or the URL it was redirected to."""
        conditions = known.validators.conditions(url) if known is not None else {"Cache-Control": "no-cache"}
        async with self._http.session.get(
            url,
            headers={**self._headers(), **conditions},
            allow_redirects=False,
            ssl=await self._context(url),
            server_hostname=self._tls.server_name if self._tls is not None else None,
            timeout=_NO_TOTAL,
        ) as response:
            if response.status == 200:
                return await self._read(url, response, known)
            if response.status == 304 and known is not None and conditions:
                return known
            if response.status in _REDIRECTING:
                return _redirected(url, response.headers.get("Location", ""))
            raise RegistryError(
                f"answered {response.status} {response.reason or ''}".rstrip(),
                retry_after_s=retry_after_s(response.headers),
            )

    async def _read(self, url: str, response: aiohttp.ClientResponse, known: _Known | None) -> _Known:
        body = await read_body(response)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        validators = Validators.of(url, response.headers)
        if known is not None and digest == known.digest:
            return _Known(known.answer, digest, validators)
        large = len(body) > LARGE_BYTES
        candidates = await read_large(body) if large else read_document(parse_json(body))
        return _Known(Answer(candidates), digest, validators)

    def _headers(self) -> dict[str, str]:
        """Raises SecretError."""
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            **dict(self._options.headers),
        }
        token = self._options.token
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        return headers

    async def _context(self, url: str) -> ssl.SSLContext | bool:
        """Raises OSError."""
        if self._tls is None:
            self._tls = ClientTls(self._options.tls) if url.startswith("https:") else None
        return await self._tls.context_at_hand() if self._tls is not None else True


class _Known:
    """The last answer, and how to ask whether it still holds."""

    __slots__ = ("answer", "digest", "validators")

    def __init__(self, answer: Answer, digest: bytes, validators: Validators) -> None:
        self.answer = answer
        self.digest = digest
        self.validators = validators


def _redirected(url: str, location: str) -> str:
    """Where to ask instead. Only the same server is asked, or the same host by TLS: what is configured is who is trusted, and the
    token is meant for them. Raises RegistryError."""
    if not location:
        raise RegistryError("a redirect to nowhere")
    target = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(target)
    safer = (old.scheme, new.scheme) == ("http", "https")
    same = old.hostname == new.hostname and (safer or (old.scheme, old.port) == (new.scheme, new.port))
    if not same or new.username is not None:
        raise RegistryError(f"redirected to {redacted_url(target)}: another server is not asked")
    return target
