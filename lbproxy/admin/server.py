"""The admin interface's life: its sockets, its HTTP server, its end."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from lbproxy.admin.binding import bound_address, inode, listen, remove, require_safe
from lbproxy.admin.connections import Connections
from lbproxy.admin.contract import Operations, RenderMetrics
from lbproxy.admin.guards import Places, guard, wall
from lbproxy.admin.options import AdminOptions
from lbproxy.admin.requests import BODY_BYTES, BODY_WITHIN_S
from lbproxy.admin.routes import ApiRoutes, PublicRoutes
from lbproxy.domain.address import Address
from lbproxy.wire.local import port_holder
from lbproxy.wire.secrets import Secret

API_REQUESTS: Final = 8
METRICS_RENDERS: Final = 2
PLACE_WITHIN_S: Final = 2.0
CONNECTIONS: Final = 128
"""Open connections a socket, so that nobody's descriptors run out over this; at one more, who has been silent longest is cut."""
IDLE_S: Final = 75.0
"""An open connection without a whole request head: longer than the usual pause between two scrapes."""
CLOSE_WITHIN_S: Final = 2.0

LINGER_S: Final = 0.5
"""How long an unread body is read on after the answer, so that a client that is still sending sees the answer."""

_http_log = logging.getLogger("lbproxy.admin.http")


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """aiohttp logs a traceback for every request that is no HTTP: a port scanner would fill the log with them."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log.addFilter(_is_worth_a_line)


class AdminServer:
    """Owns its listening sockets and every connection to them, from `start` to `close`.

    `operations` may be asked as soon as `start` has been called.
    """

    def __init__(
        self,
        operations: Operations,
        metrics: RenderMetrics,
        options: AdminOptions,
        *,
        body_within_s: float = BODY_WITHIN_S,
    ) -> None:
        self._operations = operations
        self._metrics = metrics
        self._options = options
        self._token = options.token
        self._body_within_s = body_within_s
        self._stack = AsyncExitStack()
        self._addresses: list[Address] = []

    @property
    def addresses(self) -> tuple[Address, ...]:
        """As bound: `bind` first, then `metrics_bind` where there is one. Empty before `start` and after `close`."""
        return tuple(self._addresses)

    async def start(self) -> None:
        """Listen and serve. Raises OSError when an address cannot be bound, UnsafeBindError when it must not; then nothing
        is left open."""
        options = self._options
        require_safe(options.bind, token=options.token is not None)
        renders = Places(METRICS_RENDERS, PLACE_WITHIN_S)
        public = PublicRoutes(self._operations, self._metrics, renders)
        guarded = guard(
            lambda: self._token,
            browsers=options.bind.family != "unix",
            places=Places(API_REQUESTS, PLACE_WITHIN_S),
            body_within_s=self._body_within_s,
        )
        api = ApiRoutes(self._operations)
        try:
            await self._serve(options.bind, [wall, guarded], [public, api])
            if options.metrics_bind is not None:
                await self._serve(options.metrics_bind, [wall], [public])
        except BaseException:
            await self.close()
            raise

    def set_token(self, token: Secret | None) -> None:
        """Ask for another token from now on. Raises UnsafeBindError, with nothing changed, where there must be one."""
        require_safe(self._options.bind, token=token is not None)
        self._token = token

    async def close(self) -> None:
        """Stop listening, give requests a moment to end, cut what is left. Idempotent."""
        self._addresses.clear()
        await self._stack.aclose()

    async def _serve(
        self, address: Address, middlewares: Sequence[Middleware], routes: Sequence[PublicRoutes | ApiRoutes]
    ) -> None:
        loop = asyncio.get_running_loop()
        connections = Connections(CONNECTIONS)
        app = web.Application(
            middlewares=[connections.middleware(), *middlewares], client_max_size=BODY_BYTES
        )
        for each in routes:
            each.add_to(app)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=CLOSE_WITHIN_S,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            logger=_http_log,
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        try:
            listener = listen(address)
        except OSError as error:
            raise OSError(error.errno, await asyncio.to_thread(_not_bound, address, error)) from error
        try:
            self._stack.callback(remove, address, inode(address))
            accept = _limited(runner, connections)
            if address.family == "unix":
                server = await loop.create_unix_server(accept, sock=listener)
            else:
                server = await loop.create_server(accept, sock=listener)
        except BaseException:
            listener.close()
            raise
        self._stack.callback(server.close)
        self._addresses.append(bound_address(listener, address))


def _not_bound(address: Address, error: OSError) -> str:
    """Why, with who holds the port where that can be known. Reads /proc."""
    taken = error.errno == errno.EADDRINUSE and address.family != "unix"
    holder = port_holder(address) if taken else None
    return f"cannot bind {address}: {error.strerror or error}{f' (held by {holder})' if holder else ''}"


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _limited(runner: web.AppRunner, connections: Connections) -> Callable[[], asyncio.BaseProtocol]:
    def accept() -> asyncio.BaseProtocol:
        server = runner.server
        if server is None or not connections.make_room(server.connections):
            return _TurnedAway()
        newcomer = server()
        connections.add(newcomer)
        return newcomer

    return accept
