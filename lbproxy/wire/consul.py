"""The client of a Consul agent: `consul.base` of py-consul builds requests and reads answers, over a transport of our own.

The library's own transport has one time-out of 300 s for everything, less than the longest blocking query, and leaves retries,
tokens that rotate and answers of any size to others. This one has a time-out for each call, and bounds what it reads.

Importing this module costs 57 ms and 10 MiB (py-consul imports requests): import it where Consul is really used.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import consul.base  # type: ignore[import-untyped]
from yarl import URL

from lbproxy.domain.errors import RegistryError
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import CONNECT_TIMEOUT_S, MAX_BODY_BYTES, HttpClient, retry_after_s, went_wrong
from lbproxy.wire.secrets import SecretError
from lbproxy.wire.tls import ClientTls
from lbproxy.wire.urls import redacted_url

T = TypeVar("T")
Params = Mapping[str, str | list[str]]

ANSWER_WITHIN_S: Final = 10.0
"""How long an agent may take for what needs no waiting; and the slack of what does."""
BODY_WITHIN_S: Final = 15.0
"""How long a body may take once its head has come. Blocking is over by then: an agent that trickles is in trouble."""
_SHOWN: Final = 200  # of an error's text
_MANY_PARTS: Final = 4  # putting together more of them is a step of its own
_INDEX: Final = re.compile("-?[0-9]{1,20}")


class ConsulRefused(RegistryError):
    """The agent answered with a `status` that is no answer; `text` is the beginning of what it said."""

    def __init__(self, detail: str, status: int, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class ConsulReply:
    """A 200, or a 404 where it was asked for. `headers` are looked up without regard to case."""

    status: int
    headers: Mapping[str, str]
    text: str
    digest: bytes

    @property
    def index(self) -> int | None:
        """X-Consul-Index; None where there is none. Below 1 counts as 1: a query with 0 would not block, and spin. Raises
        RegistryError for what is no number."""
        given = self.headers.get("X-Consul-Index")
        if given is None:
            return None
        if not _INDEX.fullmatch(given):
            raise RegistryError(f"consul: X-Consul-Index is no number: {given[:40]!r}")
        return max(1, int(given))

    @property
    def known_leader(self) -> bool:
        """False only where the agent knows so: a server that has lost its leader answers stale reads all the same. An answer from the
        streaming backend (1.10 and later, of every blocking query for a service's health) always says false: Consul issue 9776."""
        return self.streamed or self.headers.get("X-Consul-KnownLeader", "true").lower() != "false"

    @property
    def streamed(self) -> bool:
        """Whether it comes from what the agent is kept up to date with by its servers, instead of a question to one of them."""
        return self.headers.get("X-Consul-Query-Backend", "").lower() == "streaming"

    @property
    def last_contact_s(self) -> float:
        """How long ago the answering server last heard of its leader; infinite for what is no number."""
        given = self.headers.get("X-Consul-LastContact", "0")
        return int(given) / 1000 if given.isascii() and given.isdigit() and len(given) < 20 else math.inf

    @property
    def filtered_by_acls(self) -> bool:
        """The token may not see everything there is (Consul 1.11 and later say so, and not to the anonymous token)."""
        return self.headers.get("X-Consul-Results-Filtered-By-ACLs", "").lower() == "true"

    def json(self) -> Any:
        """The body, read at once. Raises RegistryError."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"consul: the answer is no JSON: {error}") from error


class ConsulClient:
    """One agent, as one token sees it. Every call raises RegistryError (ConsulRefused where the agent answered), within the time
    that its own waiting takes and 25 s; any may be cancelled. Calls do not wait for each other.

    Over http and https it uses the process's session; over a unix socket it owns one, from its first use to `close`.
    """

    def __init__(self, access: ConsulAccess, http: HttpClient) -> None:
        self.access = access
        self._transport = _Transport(access, http)
        self._api = _Api(self._transport)

    async def get(
        self,
        path: str,
        params: Params | None = None,
        *,
        index: int = 0,
        wait_s: float = 0.0,
        allow_404: bool = False,
    ) -> ConsulReply:
        """GET `path` (which begins with /v1/; names within it are quoted by the caller). With an `index` above 0 it waits up to
        `wait_s` for something newer."""
        return await self._transport.send(
            "GET", path, params, index=index, wait_s=wait_s, allow_404=allow_404
        )

    async def put(
        self, path: str, params: Params | None = None, body: object = None, *, allow_404: bool = False
    ) -> ConsulReply:
        """PUT with `body`: bytes as they are, None as nothing, anything else as JSON."""
        return await self._transport.send("PUT", path, params, data=_encoded(body), allow_404=allow_404)

    async def post(self, path: str, params: Params | None = None, body: object = None) -> ConsulReply:
        """POST, as `put`."""
        return await self._transport.send("POST", path, params, data=_encoded(body))

    async def delete(self, path: str, params: Params | None = None) -> ConsulReply:
        return await self._transport.send("DELETE", path, params)

    async def call(self, request: Callable[[consul.base.Consul], Awaitable[T]]) -> T:
        """What py-consul has a method for: `await client.call(lambda api: api.agent.service.register(...))`."""
        try:
            return await request(self._api)
        except consul.base.ConsulException as error:
            raise RegistryError(f"consul: {error}"[:_SHOWN]) from error

    async def close(self) -> None:
        await self._transport.aclose()


def _encoded(body: object) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return json.dumps(body, separators=(",", ":")).encode()


class _Api(consul.base.Consul):  # type: ignore[misc]  # py-consul tells no types
    """py-consul's methods over our transport; nothing of it is taken from the environment."""

    def __init__(self, transport: _Transport) -> None:
        self._transport = transport
        super().__init__("127.0.0.1", 8500, scheme="http", verify=True)
        self.token = None  # the transport's matter, for each request

    def http_connect(self, *_: object, **__: object) -> _Transport:
        return self._transport

    connect = http_connect  # python-consul's name for it


class _Transport(consul.base.HTTPClient):  # type: ignore[misc]  # py-consul tells no types
    """What py-consul sends by, and what `send` sends by."""

    def __init__(self, access: ConsulAccess, http: HttpClient) -> None:
        super().__init__()
        self._access = access
        self._http = http
        self._socket = access.address.removeprefix("unix:") if access.address.startswith("unix:") else None
        self.base_uri = "http://consul" if self._socket else access.address.rstrip("/")
        self._tls = ClientTls(access.tls) if self.base_uri.startswith("https:") else None
        self._own: aiohttp.ClientSession | None = None

    # -- for py-consul: the callback gets the answer, and what it makes of it is awaited

    def get(self, callback: Any, path: str, params: Any = None, **_: Any) -> Any:
        return self._called(callback, "GET", path, params)

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._called(callback, "PUT", path, params, data)

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._called(callback, "POST", path, params, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._called(callback, "DELETE", path, params, data)

    def close(self) -> None:
        """Nothing: `aclose` does it."""

    async def _called(self, callback: Any, method: str, path: str, params: Any, data: Any = "") -> Any:
        plain: dict[str, str | list[str]] = {}
        index, wait_s = 0, 0.0
        for key, value in params or ():
            if key == "index":
                index = int(value)
            elif key == "wait":
                wait_s = float(str(value).removesuffix("s"))
            elif key in plain:
                before = plain[key]
                plain[key] = [*(before if isinstance(before, list) else [before]), str(value)]
            elif key != "token":  # never in the URL: it would be logged
                plain[key] = str(value)
        body = data.encode() if isinstance(data, str) else data
        reply = await self.send(
            method,
            quote(path, safe="/:"),
            plain,
            data=body or None,
            index=index,
            wait_s=wait_s,
            allow_404=True,
        )
        return callback(consul.base.Response(reply.status, reply.headers, reply.text))

    # -- for us

    async def send(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        data: bytes | None = None,
        index: int = 0,
        wait_s: float = 0.0,
        allow_404: bool = False,
    ) -> ConsulReply:
        """One request. Raises RegistryError."""
        waits_s = wait_s if index > 0 else 0.0
        repeatable = method == "GET" and index == 0
        try:
            url = self._url(path, params, index, wait_s)
            # The agent adds up to a sixteenth to a wait, so that many watches do not return at once.
            async with asyncio.timeout(waits_s * 17 / 16 + ANSWER_WITHIN_S) as limit:
                reply = await self._exchange(method, url, data, repeatable, limit)
        except TimeoutError as error:
            raise RegistryError(f"{self._where(path)}: no answer in time") from error
        except (aiohttp.ClientError, OSError, SecretError, ValueError) as error:
            raise RegistryError(f"{self._where(path)}: {_reason(error)}") from error
        if reply.status == 200 or (reply.status == 404 and allow_404):
            return reply
        said = " ".join(reply.text[:_SHOWN].split())
        detail = f"{self._where(path)}: {reply.status}{f' {said}' if said else ''}"
        raise ConsulRefused(detail, reply.status, said, retry_after_s=retry_after_s(reply.headers))

    async def _exchange(
        self, method: str, url: URL, data: bytes | None, repeatable: bool, limit: asyncio.Timeout
    ) -> ConsulReply:
        more: dict[str, Any] = {}
        if not repeatable:
            more["middlewares"] = (_once,)
        if self._tls is not None:
            more |= {"ssl": await self._tls.context_at_hand(), "server_hostname": self._tls.server_name}
        async with self._session().request(
            method, url, data=data, headers=self._headers(), allow_redirects=False, timeout=_NO_TOTAL, **more
        ) as response:
            limit.reschedule(asyncio.get_running_loop().time() + BODY_WITHIN_S)
            text, digest = await _read(response)
        return ConsulReply(response.status, response.headers, text, digest)

    def _url(self, path: str, params: Params | None, index: int, wait_s: float) -> URL:
        access = self._access
        defaults = {"dc": access.datacenter, "ns": access.namespace, "partition": access.partition}
        asked: dict[str, str | list[str]] = {key: each for key, each in defaults.items() if each is not None}
        asked.update(params or {})
        if index > 0:
            asked["index"] = str(index)
            asked["wait"] = f"{round(wait_s * 1000)}ms"
        query = urlencode(asked, doseq=True)
        return URL(f"{self.base_uri}{path}{'?' if query else ''}{query}", encoded=True)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # the agent is near: packing would cost more than it saves
        if self._access.token is not None:
            headers["X-Consul-Token"] = self._access.token.reveal()
        return headers

    def _session(self) -> aiohttp.ClientSession:
        if self._socket is None:
            return self._http.session
        if self._own is None:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "lbproxy"},
            )
        return self._own

    async def aclose(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    def _where(self, path: str) -> str:
        return f"consul {redacted_url(self._access.address)}{path}"


# `send` has the whole call under a time-out of its own.
_NO_TOTAL: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)


class _Broken(aiohttp.ClientError):
    """The connection ended before the answer."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A request whose connection breaks is not sent again, as aiohttp does for every GET, PUT and DELETE: an agent that was started
    anew would keep us waiting for an index that it has long had, and a write may have been done."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # never connected, and not repeated
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Broken(str(error)) from error


async def _read(response: aiohttp.ClientResponse) -> tuple[str, bytes]:
    """The body as text, and a digest of it: both made chunk by chunk, so that 15 MiB do not hold up the loop."""
    decode = codecs.getincrementaldecoder("utf-8")()
    parts: list[str] = []
    digest = blake2b(digest_size=16)
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RegistryError(f"consul: an answer of more than {MAX_BODY_BYTES} bytes")
        digest.update(chunk)
        parts.append(decode.decode(chunk))
    parts.append(decode.decode(b"", final=True))
    if len(parts) > _MANY_PARTS:
        await asyncio.sleep(0)
    return "".join(parts), digest.digest()


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the answer is not UTF-8 text"
    return went_wrong(error)
