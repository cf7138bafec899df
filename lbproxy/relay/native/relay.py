"""The relay whose bytes move in C threads: the contract's surface over the engine (see engine.c).

The event loop's thread submits, aborts and takes events; it never touches a byte. Sessions are spread over the threads one
after the other.
"""

from __future__ import annotations

import _socket
import asyncio
import errno
import os
import resource
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from lbproxy.domain.address import SockAddress
from lbproxy.domain.errors import dial_cause
from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.contract import (
    KEEPALIVE_AFTER_MS,
    Arrival,
    Connected,
    Dial,
    Doorway,
    Event,
    EventsCallback,
    Outcome,
    Plan,
    RelayOptions,
    RelayStatistics,
    SessionView,
    SlotCounters,
    Socket,
    TcpView,
)
from lbproxy.relay.options import MAX_THREADS

try:
    from lbproxy.relay.native import _engine
except ImportError as failure:
    _missing: str | None = f"the extension cannot be loaded: {failure}"
else:
    _missing = None

CONNECTED_DELAY_MS: Final = 5
"""How long a mere Connected waits for company: most short sessions end before, and wake the loop once instead of twice."""

_UNIX: Final = socket.AF_UNIX
# Taken before a session is handed over: a dictionary that cannot grow must not lose one that the engine has already.
_PLACE: Final = 0
_SOCKET_OPTION: Final = struct.Struct("3i")
_PHASES: Final = (Phase.CONNECT, Phase.RELAY, Phase.HALF_CLOSED)
_END_REASONS: Final = tuple(EndReason)
_ABORT_NUMBERS: Final = {reason: number for number, reason in enumerate(_END_REASONS)}
_DIAL_FAILED: Final = "connect_failed"
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def available() -> str | None:
    """Why this relay cannot be had here; None if it can."""
    return _missing


def _threads(wanted: int | None) -> int:
    """How many threads to start: one a CPU this process may use unless told otherwise, and then at most what an engine takes."""
    return wanted or min(MAX_THREADS, len(os.sched_getaffinity(0)))


def _pipes(threads: int) -> int:
    """Pipes a thread may keep, one at least: two descriptors each, together a 32nd of what this process may open."""
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(256, nofile // 64) // threads)


def descriptors(threads: int | None) -> int:
    """The most that a relay of so many threads opens for itself: its pipes, an epoll and a wake-up a thread, the loop's wake-up."""
    number = _threads(threads)
    return number * (2 * _pipes(number) + 2) + 1


def _local_ports() -> tuple[int, int]:
    """The range from which the kernel takes the ports of dials; every port where it does not say."""
    try:
        first, last = _PORT_RANGE.read_text(encoding="ascii").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 0, 65535


class NativeRelay:
    """The relay in C threads (see `lbproxy.relay.contract.Relay`). `threads` None means one a CPU this process may use,
    at most `MAX_THREADS`.

    Raises OSError if the engine cannot start (no descriptors, no threads, too many of them). Only to be made where `available()` is None.
    """

    name = "native"

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_events: EventsCallback, threads: int | None = None
    ) -> None:
        threads = _threads(threads)
        first_port, last_port = _local_ports()
        self._loop = loop
        self._on_events = on_events
        self._engine = _engine.Engine(
            threads,
            _pipes(threads),
            first_port=first_port,
            last_port=last_port,
            connected_delay_ms=CONNECTED_DELAY_MS,
            keepalive_after_ms=KEEPALIVE_AFTER_MS,
        )
        self._submit = self._engine.submit
        self._launch = self._engine.launch
        self._handles: dict[int, int] = {}
        self._flushing = False
        self._closed = False
        loop.add_reader(self._engine.fileno(), self._take_events)

    # Counter slots

    def open_slot(self) -> int:
        return self._engine.open_slot()

    def close_slot(self, slot: int) -> None:
        self._engine.close_slot(slot)

    def read_slot(self, slot: int) -> SlotCounters:
        return SlotCounters(*self._engine.read_slot(slot))

    # Sessions

    def submit(self, session: int, client: Socket, upstream: Socket, options: RelayOptions) -> None:
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the relay is closed")
        client_fd, upstream_fd = client.fileno(), upstream.fileno()
        if client_fd < 0 or upstream_fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        handles = self._handles
        handles[session] = _PLACE
        try:
            handles[session] = self._submit(
                session,
                client_fd,
                upstream_fd,
                client.family == _UNIX,
                upstream.family == _UNIX,
                options.urgent_inline,
                options.first_bytes,
                *_limits(options),
            )
        except BaseException:
            del handles[session]
            raise
        try:
            client.detach()
        finally:  # out of memory for its number, which is the only way in which it fails
            upstream.detach()
        if not self._flushing:
            try:
                self._loop.call_soon(self._flush)
            except MemoryError:
                self._engine.flush()  # it needs none, and nobody else would come
            else:
                self._flushing = True

    # The doorway

    @property
    def doorway(self) -> Doorway:
        return self

    def accept(self, listening: int, most: int) -> Sequence[Arrival]:
        return self._engine.accept(listening, most)

    def prepare(self, dial: Dial) -> Plan:
        options = b"".join(_SOCKET_OPTION.pack(*option) for option in dial.socket_options)
        port = dial.target[1] if isinstance(dial.target, tuple) else 0
        address = _packed(dial.family, dial.target)
        return Plan(self._engine.prepare(dial.family, port, address, options, *_limits(dial.options)))

    def launch(self, session: int, client: int, plan: Plan, *, client_unix: bool) -> int:
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the relay is closed")
        handles = self._handles
        handles[session] = _PLACE
        try:
            handle = self._launch(session, client, client_unix, plan)
        except BaseException:
            del handles[session]
            raise
        if handle < 0:
            del handles[session]
            return -handle
        handles[session] = handle
        return 0

    def flush(self) -> None:
        self._engine.flush()

    def _flush(self) -> None:
        """Wake the threads once for all that was submitted in this turn of the loop."""
        self._flushing = False
        self._engine.flush()

    def abort(self, session: int, reason: EndReason, *, reset: bool) -> bool:
        handle = self._handles.get(session)
        return handle is not None and self._engine.abort(handle, _ABORT_NUMBERS[reason], reset)

    def sessions(self) -> Sequence[SessionView]:
        view = self._engine.view
        found = []
        for session, handle in self._handles.items():
            seen = view(handle)
            if seen is not None:
                phase, sent_bytes, received_bytes, age_s, idle_s = seen
                found.append(SessionView(session, _PHASES[phase], sent_bytes, received_bytes, age_s, idle_s))
        return found

    def look(self, session: int) -> SessionView | None:
        handle = self._handles.get(session)
        seen = None if handle is None else self._engine.look(handle)
        if seen is None:
            return None
        phase, sent_bytes, received_bytes, age_s, idle_s, client, upstream = seen
        return SessionView(
            session,
            _PHASES[phase],
            sent_bytes,
            received_bytes,
            age_s,
            idle_s,
            None if client is None else TcpView(*client),
            None if upstream is None else TcpView(*upstream),
        )

    def statistics(self) -> RelayStatistics:
        threads = self._engine.totals()
        return RelayStatistics(
            submitted=self._engine.submitted(),
            connected=sum(thread["connected"] for thread in threads),
            ended=sum(thread["ended"] for thread in threads),
            pending_bytes=sum(thread["pending"] for thread in threads),
            turns=sum(thread["turns"] for thread in threads),
            yields=sum(thread["yields"] for thread in threads),
        )

    def thread_statistics(self) -> list[dict[str, int]]:
        """Totals of each thread: what `statistics` has, and pipes and bytes by how they were moved."""
        return self._engine.totals()

    def close(self) -> None:
        """Raises MemoryError with events left, which a further call tells."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._engine.fileno())
            self._engine.stop()
        self._take_events()

    # Events

    def _take_events(self) -> None:
        """Tell what has happened. What there is no memory to tell is left for the loop's next turn."""
        events: list[Event] = []
        try:
            self._make_events(events.append)
        except BaseException:
            self._engine.call_again()
            raise
        finally:
            if events:
                self._on_events(events)

    def _make_events(self, tell: Callable[[Event], None]) -> None:
        handles = self._handles
        for told in self._engine:
            if len(told) == 2:
                tell(Connected(*told))
                continue
            (
                session,
                reason,
                phase,
                sent,
                received,
                connect_s,
                first_byte_s,
                total_s,
                error,
                client,
                is_unix,
            ) = told
            why = _REASONS[reason]
            if why is None:
                why = dial_cause(error, "unix" if is_unix else "inet").reason
            given_back = None if client < 0 else _socket.socket(fileno=client)
            try:
                tell(
                    Outcome(
                        session,
                        why,
                        _PHASES[phase],
                        sent,
                        received,
                        connect_s,
                        first_byte_s,
                        total_s,
                        error,
                        given_back,
                    )
                )
            except BaseException:
                if given_back is not None:
                    given_back.detach()  # still the engine's, until it can be told
                raise
            del handles[session]


def _limits(options: RelayOptions) -> tuple[int, int, int, int, int, int, int, int]:
    """As the engine takes them."""
    keepalive = options.keepalive
    return (
        options.connect_timeout_ms,
        options.idle_timeout_ms,
        options.half_close_timeout_ms,
        options.max_duration_ms,
        options.slot,
        *((0, 0, 0) if keepalive is None else (keepalive.idle_s, keepalive.interval_s, keepalive.probes)),
    )


def _packed(family: int, target: SockAddress) -> bytes:
    """A `struct sockaddr` of the family (ip(7), ipv6(7), unix(7))."""
    start = struct.pack("=H", family)
    if isinstance(target, tuple):
        host, port = socket.inet_pton(family, target[0]), struct.pack("!H", target[1])
        return start + port + (bytes(4) + host + bytes(4) if family == socket.AF_INET6 else host + bytes(8))
    if isinstance(target, str):
        return start + os.fsencode(target) + b"\0"
    return start + target


# By the engine's number. None: what a failed connect means is in its errno. An abort's number is the caller's, from 64 on.
_REASONS: Sequence[EndReason | None] = ()
if _missing is None:
    _own = [None if name == _DIAL_FAILED else EndReason(name) for name in _engine.REASONS]
    _REASONS = (*_own, *(None for _ in range(len(_own), _engine.REASON_OF_ABORT)), *_END_REASONS)
