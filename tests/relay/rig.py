"""A relay under test: sessions between two peers, and what the relay told about them."""

from __future__ import annotations

import _socket
import asyncio
import itertools
import select
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lbproxy.domain.session import EndReason
from lbproxy.relay.contract import (
    Connected,
    Event,
    EventsCallback,
    Keepalive,
    Outcome,
    Relay,
    RelayOptions,
    RelayStatistics,
    SessionView,
    Socket,
)
from tests.patience import WITHIN_S
from tests.relay.implementations import Factory
from tests.relay.peers import Peer

Kind = Literal["inet", "inet6", "unix"]
Legs = tuple[Kind, Kind]

TCP: Legs = ("inet", "inet")
LEGS: dict[str, Legs] = {
    "tcp": TCP,
    "tcp6": ("inet6", "inet6"),
    "unix": ("unix", "unix"),
    "tcp-unix": ("inet", "unix"),
    "unix-tcp": ("unix", "inet"),
}


@dataclass(frozen=True)
class Session:
    """One submitted session and its two peers."""

    number: int
    client: Peer
    upstream: Peer
    slot: int


class Listener:
    """Where an upstream listens, before it accepts."""

    def __init__(self, kind: Kind, folder: Path, *, backlog: int = 64) -> None:
        if kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(tempfile.mktemp(dir=folder))
        else:
            self.sock = socket.socket(socket.AF_INET6 if kind == "inet6" else socket.AF_INET)
            self.sock.bind(("::1" if kind == "inet6" else "127.0.0.1", 0))
        self.sock.listen(backlog)

    def dial(self) -> socket.socket:
        """A socket on its way here: non-blocking, the connect just begun."""
        sock = socket.socket(self.sock.family)
        sock.setblocking(False)
        sock.connect_ex(self.sock.getsockname())
        return sock

    def is_full(self) -> bool:
        """Whether the queue of a TCP listener takes nobody any more. Of a listening socket, TCP_INFO tells how many wait to be accepted,
        and how many may, where it else counts segments (`tcpi_unacked` and `tcpi_sacked`)."""
        told = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        waiting, most = struct.unpack_from("=II", told, 24)
        return bool(waiting > most)

    def accept(self) -> Peer:
        self.sock.settimeout(WITHIN_S)
        return Peer(self.sock.accept()[0])


def bare(sock: socket.socket) -> Socket:
    """The same descriptor as the raw socket that the contract takes, set up as the proxy does it."""
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _socket.socket(fileno=sock.detach())


class Rig:
    """Opens sessions through one relay and collects its events."""

    def __init__(self, make: Factory, folder: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: list[Event] = []
        self.batches: list[Sequence[Event]] = []
        self.on_batch: EventsCallback = lambda _: None
        self._changed = asyncio.Event()
        self._folder = folder
        self._numbers = itertools.count(1)
        self._opened: list[Peer | Listener] = []
        self.relay: Relay = make(self.loop, self._on_events)
        self.slot = self.relay.open_slot()
        self.options = RelayOptions(
            connect_timeout_ms=5000,
            idle_timeout_ms=0,
            half_close_timeout_ms=10_000,
            max_duration_ms=0,
            slot=self.slot,
        )

    def _on_events(self, events: Sequence[Event]) -> None:
        self.batches.append(events)
        self.events.extend(events)
        self._changed.set()
        self.on_batch(events)

    # Making sessions

    def listener(self, kind: Kind = "inet", *, backlog: int = 64) -> Listener:
        listener = Listener(kind, self._folder, backlog=backlog)
        self._opened.append(listener)
        return listener

    def full_listener(self) -> tuple[Listener, Socket]:
        """A listener whose queue is full, and a socket that is connecting to it and gets no answer (until the queue is
        emptied and the kernel sends its next SYN, about a second after the first)."""
        listener = self.listener(backlog=0)
        deadline = time.monotonic() + WITHIN_S
        # The kernel says when: that a dial has not been answered yet is no sign of it.
        while not listener.is_full():
            filler = self.keep(Peer(listener.dial()))
            assert select.select([], [filler.sock], [], WITHIN_S)[1]
            assert time.monotonic() < deadline, "the accept queue takes everybody"
        return listener, bare(listener.dial())

    def client(self, kind: Kind = "inet") -> tuple[Peer, Socket]:
        """A client, and the proxy's end of its connection."""
        listener = self.listener(kind)
        client = self.keep(Peer(listener.dial()))
        end = bare(listener.accept().sock)
        listener.sock.close()
        return client, end

    def keep(self, peer: Peer) -> Peer:
        """Close it with the rig, if the test has not."""
        self._opened.append(peer)
        return peer

    def submit(self, client: Socket, upstream: Socket, **limits: int | bytes | Keepalive) -> int:
        number = next(self._numbers)
        self.relay.submit(number, client, upstream, self.limits(**limits))
        return number

    def limits(self, **limits: int | bytes | Keepalive) -> RelayOptions:
        return replace(self.options, **limits)  # type: ignore[arg-type]

    def open(
        self,
        legs: Legs = TCP,
        *,
        tune: Callable[[socket.socket], None] | None = None,
        **limits: int | bytes | Keepalive,
    ) -> Session:
        """A submitted session with an upstream that has accepted. `tune` sees the four sockets before."""
        client, client_end = self.client(legs[0])
        listener = self.listener(legs[1])
        upstream_end = listener.dial()
        upstream = self.keep(listener.accept())
        listener.sock.close()
        if tune is not None:
            tune(client.sock)
            tune(upstream.sock)
            tune(upstream_end)
        number = self.submit(client_end, bare(upstream_end), **limits)
        return Session(number, client, upstream, self.limits(**limits).slot)

    # What the relay told

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is asked after each event batch and each short pause."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.005):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def stalled(self) -> None:
        """Wait until the relay holds bytes and no longer moves any: one with threads may be in the middle of it."""
        looks: list[RelayStatistics] = []

        def unmoved() -> bool:
            looks.append(self.relay.statistics())
            return len(looks) > 10 and looks[-1].pending_bytes > 0 and looks[-11:] == [looks[-1]] * 11

        await self.until(unmoved)

    def outcomes(self, session: int) -> list[Outcome]:
        return [event for event in self.events if type(event) is Outcome and event.session == session]

    async def outcome(self, session: Session | int) -> Outcome:
        number = session if isinstance(session, int) else session.number
        await self.until(lambda: bool(self.outcomes(number)))
        return self.outcomes(number)[0]

    async def ended(self, session: Session | int, reason: EndReason) -> Outcome:
        outcome = await self.outcome(session)
        assert outcome.reason is reason, outcome
        return outcome

    async def connected(self, session: Session | int) -> Connected:
        """That the upstream was reached; an Outcome in the same batch may say it alone."""
        number = session if isinstance(session, int) else session.number

        def found() -> list[Connected]:
            return [
                Connected(number, event.connect_s)
                for event in self.events
                if event.session == number and event.connect_s is not None
            ]

        await self.until(lambda: bool(found()))
        return found()[0]

    def view(self, session: Session) -> SessionView:
        (view,) = [view for view in self.relay.sessions() if view.session == session.number]
        return view

    # The end

    def problems(self) -> list[str]:
        """What the relay's events and totals say that cannot be."""
        statistics = self.relay.statistics()
        found = []
        if statistics.submitted != statistics.ended:
            found.append(f"{statistics} do not balance; left: {self.relay.sessions()}")
        if statistics.pending_bytes:
            found.append(f"pending bytes without a session: {statistics}")
        ended: set[int] = set()
        connected: set[int] = set()
        for event in self.events:
            if event.session in ended:
                found.append(f"after the outcome: {event}")
            if type(event) is Outcome:
                ended.add(event.session)
                if event.connect_s is not None:
                    connected.add(event.session)
                elif event.session in connected:
                    found.append(f"Connected, but without connect_s: {event}")
            elif event.session in connected:
                found.append(f"connected twice: {event}")
            else:
                connected.add(event.session)
        if len(ended) != statistics.ended or len(connected) != statistics.connected:
            found.append(f"{len(connected)} connected, {len(ended)} ended, but {statistics}")
        return found

    async def finish(self) -> None:
        """Close the peers, see every session end by that, then close the relay."""
        for opened in self._opened:
            opened.sock.close()
        try:
            await self.until(lambda: not self.problems())
        except TimeoutError:
            raise AssertionError("\n".join(self.problems())) from None
        finally:
            self.relay.close()


@asynccontextmanager
async def rig_for(make: Factory, folder: Path) -> AsyncIterator[Rig]:
    """A rig that finishes with the block, unless the block failed: then it only cleans up."""
    rig = Rig(make, folder)
    try:
        yield rig
    except BaseException:
        rig.relay.close()
        raise
    await rig.finish()
