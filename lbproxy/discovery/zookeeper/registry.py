"""The children of a node in ZooKeeper as endpoints: ephemeral nodes, each gone with the session of the instance that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.zookeeper.children import read_child
from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.discovery.zookeeper.session import Session, SessionLostError, Watch
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.tls import ClientTls

# As often the list is read without a reason: that the server still answers is news, too.
WELL_AGAIN_S: Final = 60.0
# Their answers come together: a turn of the loop takes them in within two milliseconds.
ASKED_AT_ONCE: Final = 32


class ZooKeeperRegistry:
    """A `Registry`. Owns one session at a time, from a first `next` to an error or `close`.

    A list is watched, and what stands in each child. A watch tells once, and is set anew by the very read that follows it, so no change
    is missed in between. After a loss of the connection there are no watches, and everything is read again, behind a `sync`.
    """

    def __init__(self, options: ZooKeeperOptions) -> None:
        self._options = options
        self._tls = None if options.tls is None else ClientTls(options.tls)
        self._shown = f"{','.join(options.hosts)} {options.path}"
        self._session: Session | None = None
        self._view: _View | None = None
        self._zxid = 0  # the newest state that was ever seen
        self._wake = asyncio.Event()

    async def next(self) -> Answer:
        """The first time, and after an error: a new session, and what is. Later: what is after a change, or once a minute."""
        try:
            return await self._next()
        except RegistryError as error:
            await self.close()
            raise RegistryError(f"{self._shown}: {error}") from error

    async def confirm(self) -> Answer:
        """Everything once more, behind a `sync`, beside the watches."""
        session = self._session
        if session is None or not session.connected:
            raise RegistryError(f"{self._shown}: not connected")
        try:
            await session.sync(self._options.path)
            names = sorted(await session.children(self._options.path) or ())
            found: dict[str, Candidate] = {}
            for start in range(0, len(names), ASKED_AT_ONCE):
                some = names[start : start + ASKED_AT_ONCE]
                data = await _all(*(session.data(self._child(name)) for name in some))
                found |= {n: read_child(n, d) for n, d in zip(some, data, strict=True) if d is not None}
        except SessionLostError as error:
            raise RegistryError(f"{self._shown}: the connection was lost") from error
        except RegistryError as error:
            raise RegistryError(f"{self._shown}: {error}") from error
        return Answer(tuple(found.values()))

    async def close(self) -> None:
        session, self._session, self._view = self._session, None, None
        if session is not None:
            await session.close()

    async def _next(self) -> Answer:
        session = self._session
        if session is None:
            session = self._session = Session(self._options, self._tls, self._wake.set)
            session.open()
        elif self._view is not None and self._view.told:
            await self._something(self._view)
        until = asyncio.get_running_loop().time() + self._options.session_timeout_s
        while True:
            await session.wait_connected(until)
            try:
                return await self._read(session)
            except SessionLostError:
                self._view = None  # until it is back, or the time is over
            except BaseException:
                self._view = None  # what was asked and not taken in is to be asked again
                raise

    async def _something(self, view: _View) -> None:
        """Wait until there may be something to read."""
        try:
            async with asyncio.timeout(WELL_AGAIN_S):
                await self._wake.wait()
        except TimeoutError:
            view.list_stale = True

    async def _read(self, session: Session) -> Answer:
        view, new = self._view, False
        if view is None or view.generation != session.generation:
            new = True
            view = self._view = _View(session, self._wake.set)
            await session.sync(self._options.path)
        self._wake.clear()
        if view.list_stale:
            view.list_stale = False  # before the question: a change from here on is a change after the answer
            await self._list(session, view)
        wanted = view.wanted()
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            await self._read_some(session, view, wanted[start : start + ASKED_AT_ONCE])
        if view.generation != session.generation:
            raise SessionLostError
        view.told = True
        return Answer(view.candidates(), consistent=new, regressed=new and self._regressed(session))

    async def _list(self, session: Session, view: _View) -> None:
        names = await session.children(self._options.path, view.on_list)
        while names is None:
            # Nobody there: containers go with their last child, and come with the next one.
            if not await session.exists(self._options.path, view.on_list):
                names = []
            else:
                names = await session.children(self._options.path, view.on_list)
        view.listed(names)

    async def _read_some(self, session: Session, view: _View, names: list[str]) -> None:
        view.stale.difference_update(names)  # before the question, as above
        data = await _all(*(session.data(self._child(name), view.on_data(name)) for name in names))
        for name, found in zip(names, data, strict=True):
            view.read(name, found)

    def _regressed(self, session: Session) -> bool:
        """Whether the ensemble is at an older state than it was: restored, or emptied."""
        before, self._zxid = self._zxid, session.zxid
        return self._zxid < before

    def _child(self, name: str) -> str:
        return f"{self._options.path.rstrip('/')}/{name}"


class _View:
    """What is known of the children within one connection."""

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self.generation = session.generation
        self.list_stale = True
        self.stale: set[str] = set()
        self.told = False
        self.on_list = session.watcher(self._list_changed)  # one object: set twice, it tells once
        self._session = session
        self._changed: Callable[[], None] = changed
        self._names: list[str] = []
        self._known: dict[str, Candidate] = {}

    def on_data(self, name: str) -> Watch:
        return self._session.watcher(partial(self._data_changed, name))

    def listed(self, names: list[str]) -> None:
        self._names = sorted(names)
        gone = self._known.keys() - set(names)
        for name in gone:
            del self._known[name]
        self.stale &= set(names)

    def wanted(self) -> list[str]:
        """The children to read: new ones, and those that have changed."""
        new = [] if len(self._known) == len(self._names) else [n for n in self._names if n not in self._known]
        return new + sorted(self.stale & self._known.keys())

    def read(self, name: str, data: bytes | None) -> None:
        """None: it went between the list and the question, as a new list will say, too."""
        if data is not None:
            self._known[name] = read_child(name, data)
            return
        self._known.pop(name, None)
        self.stale.discard(name)
        self._names = [each for each in self._names if each != name]

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._known[name] for name in self._names)

    def _list_changed(self) -> None:
        self.list_stale = True
        self._changed()

    def _data_changed(self, name: str) -> None:
        self.stale.add(name)
        self._changed()


async def _all(*asked: Awaitable[bytes | None]) -> list[bytes | None]:
    """The answers in their order. All of them are waited for, also when one raises: none is left on its way."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found: list[bytes | None] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return found
