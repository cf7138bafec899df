"""A ZooKeeper client of its own threads, seen from the event loop.

kazoo keeps the session: it connects, pings, and connects again, in a thread for the connection and two for callbacks. Everything it
tells comes to the loop by `call_soon_threadsafe`, and nothing else crosses.

What kazoo leaves to its user: its watches are gone after each loss of the connection (`generation` counts them), requests made
meanwhile wait for ever, and a client that has seen a newer state than the server refuses that server for ever: so a session that
does not come back is given up as a whole, and a new one begins from nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from kazoo import exceptions
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import EventType, KazooState

from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import CONNECT_TIMEOUT_S
from lbproxy.wire.secrets import SecretError
from lbproxy.wire.tls import ClientTls

CLOSE_GENTLY_S: Final = 1.0  # for the server to hear that the session ends
# Then the threads are left to themselves: they end with the time-outs of their sockets.
CLOSE_AT_MOST_S: Final = 3.0

Watch = Callable[[Any], None]
"""Called by kazoo, in its thread."""

_log = logging.getLogger(f"{__name__}.kazoo")
_log.setLevel(logging.ERROR)  # it tells of each try to connect; that it does not is told by whoever asks us

_LOST: Final = (
    exceptions.ConnectionLoss,
    exceptions.SessionExpiredError,
    exceptions.ConnectionClosedError,
    exceptions.SessionMovedError,
)


class SessionLostError(Exception):
    """The connection went away while it was asked something."""


class Session:
    """Not connected before `open`; of no use after `close`. `changed` is called on the loop when the state is another one."""

    def __init__(self, options: ZooKeeperOptions, tls: ClientTls | None, changed: Callable[[], None]) -> None:
        """Raises RegistryError."""
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._changed = changed
        self._handler = _Handler(tls)
        self._state = asyncio.Event()
        self.connected = False
        self.generation = 0
        self._client: Any = KazooClient(
            hosts=list(options.hosts),
            timeout=options.session_timeout_s,
            handler=self._handler,
            auth_data=_credentials(options),
            # kazoo's own default waits up to an hour between two tries
            connection_retry={"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 2.0},
            logger=_log,
        )
        self._client.add_listener(self._listen)

    @property
    def zxid(self) -> int:
        """The newest state of the server that was seen in this session."""
        return int(self._client.last_zxid)

    def open(self) -> None:
        """Begin to connect: starts threads, waits for nobody."""
        self._client.start_async()

    async def wait_connected(self, until: float) -> None:
        """`until` is of the loop's clock. Raises RegistryError when it is not connected by then, or will never be."""
        try:
            async with asyncio.timeout_at(until):
                while not self.connected:
                    if self._client.client_state == "AUTH_FAILED":
                        raise RegistryError("authentication failed")
                    self._state.clear()
                    await self._state.wait()
        except TimeoutError as error:
            why = self._handler.trouble or "no connection"
            raise RegistryError(why) from error

    def watcher(self, callback: Callable[[], None]) -> Watch:
        """What to give as `watch`: `callback` will be called on the loop, once for each time that it is given, unless the connection
        is lost before."""

        def told(event: Any) -> None:
            if event.type != EventType.NONE:
                self._soon(callback)

        return told

    async def children(self, path: str, watch: Watch | None = None) -> list[str] | None:
        """None where there is no such node. Raises SessionLostError, RegistryError; so do the other three."""
        found: list[str] | None = await self._ask(self._client.get_children_async(path, watch))
        return found

    async def data(self, path: str, watch: Watch | None = None) -> bytes | None:
        found = await self._ask(self._client.get_async(path, watch))
        return None if found is None else bytes(found[0] or b"")

    async def exists(self, path: str, watch: Watch) -> bool:
        return await self._ask(self._client.exists_async(path, watch)) is not None

    async def sync(self, path: str) -> None:
        """From now on, what is read is as new as what the leader knows now."""
        await self._ask(self._client.sync_async(path))

    async def close(self) -> None:
        """End the session and its threads, within `CLOSE_AT_MOST_S`."""
        ended = asyncio.Event()

        def end() -> None:
            try:
                self._client.stop()
                self._client.close()
            except Exception:  # noqa: BLE001 - kazoo's own impatience with its thread is an exception of no kind
                _log.debug("a client that did not end in time", exc_info=True)
            finally:
                self._soon(ended.set)

        # No thread of the loop's executor: that one is waited for at the end of the process, however long it takes.
        threading.Thread(target=end, name="zookeeper: the end of a session", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_GENTLY_S):
                await ended.wait()
        except TimeoutError:
            self._handler.cut()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_AT_MOST_S - CLOSE_GENTLY_S):
                    await ended.wait()
        finally:
            self._handler.cut()

    async def _ask(self, result: Any) -> Any:
        """The value of kazoo's result; None for a node that is not there."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def settle() -> None:
            if future.done():
                return
            if result.exception is None:
                future.set_result(result.value)
            else:
                future.set_exception(result.exception)

        result.rawlink(lambda _: self._soon(settle))
        try:
            async with asyncio.timeout(self._options.session_timeout_s):
                return await future
        except exceptions.NoNodeError:
            return None
        except _LOST as error:
            raise SessionLostError from error
        except TimeoutError as error:
            raise RegistryError(f"no answer within {self._options.session_timeout_s:g} s") from error
        except exceptions.KazooException as error:
            name = type(error).__name__.removesuffix("Error")
            raise RegistryError(f"answered {name}" + (f": {error}" if str(error) else "")) from error

    def _listen(self, state: str) -> None:
        """In kazoo's thread."""
        self._handler.established = state == KazooState.CONNECTED
        self._soon(lambda: self._now(state))

    def _now(self, state: str) -> None:
        self.connected = state == KazooState.CONNECTED
        if not self.connected:
            self.generation += 1
        self._state.set()
        self._changed()

    def _soon(self, callback: Callable[[], None]) -> None:
        # The loop may have ended, and with it everybody who could want to know.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)


class _Handler(SequentialThreadingHandler):  # type: ignore[misc] # kazoo has no types
    """Connects as we do everywhere, and can cut the connection off, so that a thread that waits for a silent server ends."""

    def __init__(self, tls: ClientTls | None) -> None:
        super().__init__()
        self._tls = tls
        self._lock = threading.Lock()
        self._cut = False
        self._connection: socket.socket | None = None
        self.established = False
        self.trouble = ""

    def select(self, *args: Any) -> Any:
        """Bounds how long a server may take to welcome us: kazoo would give it a whole session, and one that is about to start, or is
        stopped, would be waited for beside others that are well."""
        *sockets, timeout = args
        if not self.established and timeout is not None:
            timeout = min(timeout, CONNECT_TIMEOUT_S)
        return super().select(*sockets, timeout)

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, timeout: float | None = None, **_: object
    ) -> socket.socket:
        """In kazoo's thread. Raises OSError."""
        try:
            connection = self._connect(
                address, hostname, min(timeout or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
            )
        except OSError as error:
            self.trouble = f"{hostname or address[0]}:{address[1]}: {error.strerror or error}"
            raise
        self.trouble = f"{hostname or address[0]}:{address[1]} takes no session"
        return connection

    def cut(self) -> None:
        """Shut the connection down, and let no other one be made."""
        with self._lock:
            self._cut = True
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _connect(self, address: tuple[str, int], hostname: str | None, timeout: float) -> socket.socket:
        connection = socket.create_connection(address, timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                name = self._tls.server_name or hostname
                connection = self._tls.context().wrap_socket(connection, server_hostname=name)
            with self._lock:
                if self._cut:
                    raise ConnectionAbortedError("closed")
                self._connection = connection
        except BaseException:
            connection.close()
            raise
        return connection


def _credentials(options: ZooKeeperOptions) -> list[tuple[str, str]]:
    """Raises RegistryError."""
    if options.password is None:
        return []
    try:
        return [("digest", f"{options.user}:{options.password.reveal()}")]
    except SecretError as error:
        raise RegistryError(str(error)) from error
