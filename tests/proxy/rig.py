"""The proxy row in one process: a listener, a pool, the dialer and a real relay, with scripted peers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.effects import Effect, EndpointAdded, EndpointForgotten
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.session import EndReason, Phase
from lbproxy.pool.options import PoolOptions
from lbproxy.pool.pool import Pool
from lbproxy.proxy.admission import Capacity
from lbproxy.proxy.dialing import Dialer
from lbproxy.proxy.listener import Listener
from lbproxy.proxy.options import ConnectOptions, ListenerOptions
from lbproxy.proxy.routing import Route
from lbproxy.proxy.sessions import Session
from lbproxy.proxy.sockets import open_listening
from lbproxy.relay.contract import Outcome, Relay
from lbproxy.strategies.registry import make
from tests.accepting import accept
from tests.patience import WITHIN_S
from tests.relay.implementations import IMPLEMENTATIONS

relay_kind = "asyncio"  # which relay a rig gets; conftest.py runs every test once with each
LOOPBACK = ip_address("127.0.0.1", 0)
LINGER_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: the close is an RST


class Ended:
    """One ended session, as the access log would be told."""

    def __init__(self, session: Session, outcome: Outcome) -> None:
        self.reason: EndReason = outcome.reason
        self.phase: Phase = outcome.phase
        self.attempts = session.attempts
        self.endpoint = session.last_endpoint
        self.sent_bytes = outcome.sent_bytes
        self.received_bytes = outcome.received_bytes
        self.client = session.client_host
        self.errno = outcome.errno


class Rig:
    """Everything from the accept queue to the end of a session. `close` ends what is left and is part of `running`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.loop = loop
        self.ended: list[Ended] = []
        self._told = asyncio.Event()
        self.capacity = Capacity(limit)
        self.dialer = Dialer(loop, self.capacity, random.Random(1), self.apply, self._log)
        self.relay: Relay = IMPLEMENTATIONS[relay_kind](loop, self.dialer.on_events)
        self.dialer.attach(self.relay)
        self.pool = Pool(PoolOptions("up"), lambda options: make(options.type, options.choices))
        self.listener = Listener(loop, self.capacity, self.dialer, "in")

    def apply(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, EndpointAdded):
                effect.endpoint.slot = self.relay.open_slot()
            elif isinstance(effect, EndpointForgotten):
                self.relay.close_slot(effect.endpoint.slot)

    def _log(self, session: Session, outcome: Outcome, ended_at: float) -> None:
        self.ended.append(Ended(session, outcome))
        self._told.set()

    def start(
        self,
        members: Sequence[Member | Address],
        options: ListenerOptions | None = None,
        connect: ConnectOptions | None = None,
        bind: Address = LOOPBACK,
    ) -> None:
        given = tuple(each if isinstance(each, Member) else Member(each) for each in members)
        self.apply(self.pool.apply_membership(Membership(given), self.loop.time()))
        options = replace(options or ListenerOptions("in", (), "up"), binds=(bind,))
        self.route = Route("in", self.pool)
        self.route.configure(options.timeouts, options.tcp, connect or ConnectOptions())
        self.listener.configure(options, self.route)
        self.listener.add(bind, open_listening(bind, options.tcp, options.backlog, v6only=False))

    @property
    def address(self) -> Address:
        return self.listener.addresses[0]

    def connect(self, source: str | None = None) -> socket.socket:
        """A client of the listener; the caller closes it."""
        return connect(self.address, source)

    async def until_ended(self, count: int) -> list[Ended]:
        """Wait until `count` sessions have ended."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.ended) < count:
                self._told.clear()
                await self._told.wait()
        return self.ended

    async def close(self) -> None:
        self.listener.close()
        for session in list(self.dialer.sessions):
            self.dialer.abort(session, EndReason.DRAINED, reset=True)
        self.relay.close()
        # The relay's last outcomes may have freed sessions that hold places; all of it must balance.
        assert self.capacity.active == 0
        assert self.listener.active == 0
        assert len(self.dialer.sessions) == 0
        assert all(endpoint.active == 0 for endpoint in self.pool.endpoints())
        statistics = self.relay.statistics()
        assert statistics.submitted == statistics.ended


@contextlib.asynccontextmanager
async def running(limit: int = 1000) -> AsyncIterator[Rig]:
    """A rig that is closed at the end, and must balance then."""
    rig = Rig(asyncio.get_running_loop(), limit)
    try:
        yield rig
    finally:
        await rig.close()


def connect(address: Address, source: str | None = None) -> socket.socket:
    """Connected before the proxy has a chance to accept: the kernel does it, and this call does not give way to the loop."""
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[address.family]
    client = socket.socket(family, socket.SOCK_STREAM)
    if source is not None:
        client.bind((source, 0))
    name = address.host.replace("@", "\0", 1) if address.family == "unix" else (address.host, address.port)
    client.connect(name)
    client.setblocking(False)
    return client


async def receive_all(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> bytes:
    """Everything up to the FIN. Raises ConnectionResetError on an RST."""
    parts = []
    async with asyncio.timeout(WITHIN_S):
        while part := await loop.sock_recv(peer, 65536):
            parts.append(part)
    return b"".join(parts)


async def receive(loop: asyncio.AbstractEventLoop, peer: socket.socket, count: int) -> bytes:
    got = b""
    async with asyncio.timeout(WITHIN_S):
        while len(got) < count:
            part = await loop.sock_recv(peer, count - len(got))
            if not part:
                break
            got += part
    return got


class Peer:
    """An upstream: says its name to whoever connects, echoes until FIN, then closes. Counts what it accepted."""

    def __init__(self, group: asyncio.TaskGroup, name: bytes, listening: socket.socket) -> None:
        self.name = name
        self.accepted = 0
        self.listening = listening
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._connections: set[socket.socket] = set()
        group.create_task(self._serve(), name=f"peer {name!r}")

    async def _serve(self) -> None:
        while True:
            client = await accept(self.listening)
            self.accepted += 1
            self._connections.add(client)
            self._group.create_task(self._talk(client), name="peer talk")

    async def _talk(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(ConnectionError):
                await self._loop.sock_sendall(client, self.name)
                while data := await self._loop.sock_recv(client, 65536):
                    await self._loop.sock_sendall(client, data)
        finally:
            self._connections.discard(client)

    def close(self) -> None:
        """Close what a cancelled task may never have begun to talk to."""
        for client in self._connections:
            client.close()


@contextlib.asynccontextmanager
async def peers(*names: bytes, at: Address = LOOPBACK) -> AsyncIterator[dict[bytes, Peer]]:
    """Upstreams by name, each on its own port, gone at the end."""
    with contextlib.ExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as group:
                found = {name: Peer(group, name, stack.enter_context(listening_socket(at))) for name in names}
                for peer in found.values():
                    stack.callback(peer.close)
                yield found
                raise _OverError
        except* _OverError:
            pass


class _OverError(Exception):
    """Ends the peers' group."""


def listening_socket(at: Address = LOOPBACK, backlog: int = 128) -> socket.socket:
    if at.family == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind("\0" + at.host[1:] if at.host.startswith("@") else at.host)
    else:
        made = socket.socket(socket.AF_INET6 if at.family == "inet6" else socket.AF_INET, socket.SOCK_STREAM)
        made.bind((at.host, at.port))
    made.setblocking(False)
    made.listen(backlog)
    return made


def address_of(listening: socket.socket) -> Address:
    name = listening.getsockname()
    return ip_address(name[0], name[1])


@contextlib.contextmanager
def refusing() -> Iterator[Address]:
    """An address that refuses: a bound port without a listener, so that nobody else can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield ip_address("127.0.0.1", bound.getsockname()[1])


@contextlib.contextmanager
def unanswering() -> Iterator[Address]:
    """An address that does not answer: a full accept queue drops the SYN, as a blackhole does."""
    with listening_socket(backlog=0) as hole, contextlib.ExitStack() as fill:
        # One is let in, and has been when this returns.
        fill.enter_context(socket.create_connection(hole.getsockname()))
        yield address_of(hole)
