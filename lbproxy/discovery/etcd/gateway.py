"""etcd's JSON gateway (`/v3/...`, etcd 3.4 and later): requests, the token, and the stream of a watch.

Nothing is retried here but a request whose token was refused, once, with a new one. Errors do not name the member: the registry does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from lbproxy.discovery.etcd.keys import encode, prefix_end
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import HttpClient, read_json, retry_after_s, went_wrong
from lbproxy.wire.json_lines import JsonLines
from lbproxy.wire.secrets import SecretError
from lbproxy.wire.tls import ClientTls

COMPLAINT_BYTES: Final = 64 << 10
SHOWN: Final = 500  # characters of what etcd says
NO_TOKEN: Final = ""
# A member that has lost its cluster ends the watch instead of staying silent (clientv3's WithRequireLeader).
_HAS_LEADER: Final = {"Grpc-Metadata-hasleader": "true"}

_UNAUTHENTICATED: Final = 16  # gRPC's code
# What etcd says (api/v3rpc/rpctypes/error.go) of a token that it has forgotten, that is older than a change of its users, or missing.
_TOKEN_REFUSED: Final = (
    "invalid auth token",
    "revision of auth store is old",
    "revision in header is old",
    "user name is empty",
)
_NO_AUTH: Final = "authentication is not enabled"
_COMPACTED: Final = "required revision has been compacted"


class Compacted(RegistryError):
    """The revision asked for is no longer kept."""


class _TokenRefused(RegistryError):
    """A new token may help."""


class Gateway:
    """Requests to one member at a time."""

    def __init__(self, options: EtcdOptions, http: HttpClient, first: int) -> None:
        self._options = options
        self._http = http
        self._addresses = tuple(address.rstrip("/") for address in options.addresses)
        self._turn = first % len(self._addresses)
        self._tls = ClientTls(options.tls)
        self._token: str | None = None
        self._prefix = options.prefix.encode()

    @property
    def address(self) -> str:
        """The member in use."""
        return self._addresses[self._turn]

    def turn(self) -> None:
        """Go on to the next member after an error. The token is forgotten, too: of one from before a loss of memory etcd may think that
        it comes from its future, and then a request with it waits for that (simple tokens end in an index of the log)."""
        self._token = None
        self._turn = (self._turn + 1) % len(self._addresses)

    async def count(self) -> Mapping[str, Any]:
        """How many keys there are, and at which revision: linearizable, and no more than a few bytes."""
        return await self._ask("/v3/kv/range", {**self._span(self._prefix), "count_only": True})

    async def has_news(self, revision: int) -> bool:
        """Whether a key that exists was put after `revision`: linearizable. etcd looks at every key for it, and sends one at most."""
        news = {"min_mod_revision": str(revision + 1), "keys_only": True, "limit": "1"}
        return bool((await self._ask("/v3/kv/range", {**self._span(self._prefix), **news})).get("kvs"))

    async def page(self, start: bytes, limit: int, revision: int) -> Mapping[str, Any]:
        """Up to `limit` keys from `start` on, in their order. `revision` 0 is the newest, linearizable. Raises Compacted."""
        body = {**self._span(start), "limit": str(limit)}
        if revision:
            body["revision"] = str(revision)
        return await self._ask("/v3/kv/range", body)

    async def watch(self, revision: int) -> Watch:
        """Everything that happens from `revision` on. The caller closes it."""
        create = {**self._span(self._prefix), "start_revision": str(revision), "progress_notify": True}
        try:
            return await self._open(create, await self._current_token())
        except _TokenRefused:
            return await self._open(create, await self._new_token())

    def _span(self, start: bytes) -> dict[str, Any]:
        return {"key": encode(start), "range_end": encode(prefix_end(self._prefix))}

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return await self._exchange(path, body, await self._current_token())
        except _TokenRefused:
            return await self._exchange(path, body, await self._new_token())

    async def _current_token(self) -> str:
        if self._token is None and self._options.username is not None:
            return await self._new_token()
        return self._token or NO_TOKEN

    async def _new_token(self) -> str:
        """`NO_TOKEN` where the cluster knows no users. Raises RegistryError."""
        username, password = self._options.username, self._options.password
        if username is None or password is None:
            raise RegistryError("it wants a username and a password")
        self._token = None
        try:
            credentials = {"name": username, "password": password.reveal()}
            answer = await self._exchange("/v3/auth/authenticate", credentials, NO_TOKEN)
        except SecretError as error:
            raise RegistryError(str(error)) from error
        except RegistryError as error:
            if _NO_AUTH not in str(error):
                raise
            self._token = NO_TOKEN
            return NO_TOKEN
        token = answer.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryError("no token in its answer")
        self._token = token
        return token

    async def _exchange(self, path: str, body: Mapping[str, Any], token: str) -> Mapping[str, Any]:
        """One request and its whole answer, within `timeout_s`. Raises RegistryError."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                async with await self._post(path, body, token) as response:
                    if response.status != 200:
                        raise await _complaint(response)
                    answer = await read_json(response)
        except TimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from error
        if not isinstance(answer, Mapping):
            raise RegistryError("the answer is no object")
        return answer

    async def _open(self, create: Mapping[str, Any], token: str) -> Watch:
        """The stream, once etcd has said that it is there, within `timeout_s`. Raises RegistryError."""
        watch: Watch | None = None
        try:
            async with asyncio.timeout(self._options.timeout_s):
                watch = Watch(await self._post("/v3/watch", {"create_request": create}, token))
                await watch.created()
        except BaseException as error:
            if watch is not None:
                watch.close()
            if isinstance(error, TimeoutError):
                raise self._silent() from error
            if isinstance(error, EOFError):
                raise RegistryError("the watch ended before it began") from error
            if isinstance(error, aiohttp.ClientError | OSError):
                raise _unreachable(error) from error
            raise
        return watch

    async def _post(self, path: str, body: Mapping[str, Any], token: str) -> aiohttp.ClientResponse:
        try:
            return await self._post_once(path, body, token)
        except aiohttp.ServerDisconnectedError:
            # A kept connection that the other side had given up. Nothing here writes: asking again is safe, and for a POST the client
            # leaves that to us.
            return await self._post_once(path, body, token)

    async def _post_once(self, path: str, body: Mapping[str, Any], token: str) -> aiohttp.ClientResponse:
        secure = self.address.startswith("https:")
        context: ssl.SSLContext | bool = await self._tls.context_at_hand() if secure else True
        return await self._http.session.post(
            self.address + path,
            data=json.dumps(body),
            headers={
                "Content-Type": "application/json",
                **_HAS_LEADER,
                **({"Authorization": token} if token else {}),
            },
            allow_redirects=False,
            ssl=context,
            server_hostname=self._tls.server_name if secure else None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._options.timeout_s),
        )

    def _silent(self) -> RegistryError:
        return RegistryError(f"no full answer within {self._options.timeout_s:g} s")


class Watch:
    """The stream of one watch; owns its connection until `close`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._lines = JsonLines(response.content)
        self.header: Any = None  # what the member said of itself when it began

    @property
    def ready(self) -> bool:
        """Whether `next` need not wait."""
        return self._lines.ready

    @property
    def within(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._lines.within

    async def created(self) -> None:
        """Wait for etcd's word that it watches. Raises RegistryError, EOFError and what the connection brings."""
        if self._response.status != 200:
            raise await _complaint(self._response)
        first = await self._read()
        if first.get("canceled"):
            raise _judged(why_cancelled(first), None)
        if first.get("created") is not True:
            raise RegistryError("a watch that begins without `created`")
        self.header = first.get("header")

    async def next(self) -> Mapping[str, Any]:
        """The next message. Raises EOFError at the end of the stream, RegistryError for what is no message; may be cancelled, and
        called again."""
        try:
            return await self._read()
        except RegistryError as error:
            raise RegistryError(f"the watch: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from error

    def close(self) -> None:
        self._response.close()

    async def _read(self) -> Mapping[str, Any]:
        line = await self._lines.next()
        if isinstance(line, Mapping):
            if "error" in line:
                raise _judged(_words(line["error"]), _code(line["error"]))
            if isinstance(result := line.get("result"), Mapping):
                return result
        raise RegistryError("a message that is neither a result nor an error")


def why_cancelled(message: Mapping[str, Any]) -> str:
    """What a message that ends a watch says of it, on one line."""
    given = message.get("cancel_reason")
    return " ".join(given[:SHOWN].split()) if isinstance(given, str) and given else "it does not say why"


async def _complaint(response: aiohttp.ClientResponse) -> RegistryError:
    """What is wrong, from an answer that is not 200."""
    what, code = f"answered {response.status} {response.reason or ''}".rstrip(), None
    try:
        said = await read_json(response, COMPLAINT_BYTES)
    except RegistryError:
        said = None  # the status says enough
    if isinstance(said, Mapping) and (words := _words(said)):
        what, code = f"{what}: {words}", _code(said)
    return _judged(what, code, retry_after_s(response.headers))


def _unreachable(error: BaseException) -> RegistryError:
    return RegistryError(went_wrong(error))


def _judged(what: str, code: int | None, wait_s: float | None = None) -> RegistryError:
    kind: type[RegistryError] = RegistryError
    if code == _UNAUTHENTICATED or any(words in what for words in _TOKEN_REFUSED):
        kind = _TokenRefused
    elif _COMPACTED in what:
        kind = Compacted
    return kind(what, retry_after_s=wait_s)


def _words(said: Any) -> str:
    """etcd 3.4 writes {"error", "message", "code"}, within a stream {"grpc_code", "message", ...}, later ones {"code", "message"}."""
    if isinstance(said, Mapping):
        said = said.get("message") or said.get("error")
    return " ".join(said[:SHOWN].split()) if isinstance(said, str) else ""


def _code(said: Any) -> int | None:
    code = (said.get("code") or said.get("grpc_code")) if isinstance(said, Mapping) else None
    return code if isinstance(code, int) else None
