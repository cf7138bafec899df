"""The relay's contract: what moves bytes between two sockets, and what it tells about it.

Every implementation passes the same conformance suite. In words:

- `submit` **takes over** both sockets from the moment it returns; if it raises, the caller still owns them. The upstream
  socket may still be connecting (`connect` returned 0 or EINPROGRESS): the relay finishes the connect.
- Zero bytes are read from the client before the upstream is connected. A failed connect gives the client socket back in its
  `Outcome`, untouched, so that another endpoint can be tried.
- Events come in batches on the event loop, never from within `submit` or `abort`. Exactly one `Outcome` a submit; one `Connected`
  in an earlier batch if the upstream was reached, or in the same one, or none there: an Outcome's `connect_s` says it, too.
- Bytes are counted live in the submit's counter slot.
- All methods are called on the event loop's thread.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NewType, Protocol

from lbproxy.domain.address import SockAddress
from lbproxy.domain.session import EndReason, Phase

Socket = _socket.socket
"""A raw, non-blocking stream socket. Not `socket.socket`: its Python layer costs a microsecond and buys nothing here."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Seconds without a byte before the first probe, seconds between probes, and after how many without an answer it is over."""

    idle_s: int
    interval_s: int
    probes: int


KEEPALIVE_AFTER_MS: Final = 1000
"""How long an upstream has been connected when its keepalive is set. It says nothing before `idle_s` (at least a second) anyway, and
four system calls are a good part of what a short session costs."""


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """One submit's limits in milliseconds (0 means none), and what it counts into. Frozen, so one object serves many submits."""

    connect_timeout_ms: int
    idle_timeout_ms: int
    half_close_timeout_ms: int
    max_duration_ms: int
    slot: int
    first_bytes: bytes = b""  # written to the upstream before anything of the client's
    # The caller has set SO_OOBINLINE on both sockets (a listening socket passes it on); else the relay sets it, at two system calls.
    urgent_inline: bool = False
    # Set on a TCP upstream once it has been connected for `KEEPALIVE_AFTER_MS`. None leaves the socket as the caller made it.
    keepalive: Keepalive | None = None


@dataclass(slots=True)
class Connected:
    """The upstream answered; `connect_s` counts from the submit."""

    session: int
    connect_s: float


@dataclass(slots=True)
class Outcome:
    """How one submit ended.

    `sent_bytes` went client -> upstream, `received_bytes` upstream -> client: what the other side's kernel took, so bytes lost
    with a reset are not in it. `first_bytes` of the options are not counted. Times count from the submit; `connect_s` is None
    without a connection, `first_byte_s` None without a byte from the upstream. `errno` is 0 where no system call failed.
    `client` is the client's socket, given back to the caller, when the connect failed (phase CONNECT, for one of the reasons
    `connect_*` or `local_*`), else None: then the relay has closed both.
    """

    session: int
    reason: EndReason
    phase: Phase
    sent_bytes: int
    received_bytes: int
    connect_s: float | None
    first_byte_s: float | None
    total_s: float
    errno: int
    client: Socket | None


Event = Connected | Outcome
EventsCallback = Callable[[Sequence[Event]], None]


@dataclass(slots=True)
class SlotCounters:
    """One counter slot: bytes client -> upstream and upstream -> client since the slot was opened."""

    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class TcpView:
    """One TCP leg as the kernel sees it (TCP_INFO). `rtt_s` is the smoothed round-trip time to its peer, None before the first
    one was measured; `retransmits` are segments sent again since the connect began."""

    rtt_s: float | None
    retransmits: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """One live session as the relay sees it, read on demand. `idle_s` is the time since its last byte. The legs are there only
    where one session is asked for (`Relay.look`), on TCP, and until it ends."""

    session: int
    phase: Phase
    sent_bytes: int
    received_bytes: int
    age_s: float
    idle_s: float
    client_tcp: TcpView | None = None
    upstream_tcp: TcpView | None = None


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """Totals since start. `submitted - ended` are live. `pending_bytes` were read and not yet written, over all sessions."""

    submitted: int
    connected: int
    ended: int
    pending_bytes: int
    turns: int  # wake-ups
    yields: int  # times a busy session gave way to the others


@dataclass(frozen=True, slots=True)
class Dial:
    """How one endpoint is dialled, and what holds for the sessions on it: the same for all of them. `family` is an AF_ number,
    `target` what `connect` takes, with an IP literal without a zone. `socket_options` (level, name, value) are set before the connect
    and keep urgent bytes inline; `options` has no `first_bytes`."""

    family: int
    target: SockAddress
    socket_options: tuple[tuple[int, int, int], ...]
    options: RelayOptions


Plan = NewType("Plan", object)
"""A `Dial` as the doorway that prepared it wants it."""

Arrival = tuple[int, str, int, int]
"""A client that was accepted: its descriptor (non-blocking, the taker's from now on), its address ("" on a unix socket) and port, and
the errno pending on it, 0 if it is well. IPv4 clients of an IPv6 socket are spelled as the kernel does."""


class Doorway(Protocol):
    """What a relay may offer beside `submit`: the plain way of a session, by descriptors, without an object a socket."""

    def accept(self, listening: int, most: int) -> Sequence[Arrival]:
        """Clients that wait on a listening socket, at most `most` and never more than some dozens; fewer than asked for says nothing.

        Raises OSError when the first accept fails otherwise than for want of clients.
        """

    def prepare(self, dial: Dial) -> Plan: ...

    def launch(self, session: int, client: int, plan: Plan, *, client_unix: bool) -> int:
        """Dial, and submit both sockets: 0, or the errno of a connect that failed at once.

        From a 0 on the relay owns `client`, as by `Relay.submit`; else it stays with the caller. Raises OSError for what is not
        the endpoint's fault: no socket, an option refused, or the submit was.
        """

    def flush(self) -> None:
        """Get to work on what was launched: once for many, before the caller returns to the event loop."""


class Relay(Protocol):
    """Made with an `EventsCallback`; alive until `close`."""

    name: str

    @property
    def doorway(self) -> Doorway | None:
        """None where sessions come by `submit` alone."""

    def open_slot(self) -> int:
        """A counter slot, both counts 0. Slots are few (one an endpoint) and reused after `close_slot`."""

    def close_slot(self, slot: int) -> None:
        """Give the slot back. The caller sees to it that no live session counts into it."""

    def read_slot(self, slot: int) -> SlotCounters: ...

    def submit(self, session: int, client: Socket, upstream: Socket, options: RelayOptions) -> None:
        """Take over both sockets. `session` is the caller's number, unique among live ones.

        Raises OSError (for instance ENOSPC from epoll_ctl) and leaves both sockets with the caller.
        """

    def abort(self, session: int, reason: EndReason, *, reset: bool) -> bool:
        """End a session; its Outcome follows with this reason. `reset`: RST both sides now. Otherwise close with a FIN where
        nothing is undelivered, and with an RST where a FIN would make a truncated stream look whole. A session that is still connecting
        is cancelled and its client closed, not given back. False if the session is not here (it has already ended)."""

    def statistics(self) -> RelayStatistics: ...

    def sessions(self) -> Sequence[SessionView]: ...

    def look(self, session: int) -> SessionView | None:
        """One session, with what the kernel knows about its legs: two system calls. None if it is not here."""

    def close(self) -> None:
        """Reset what is left (reason KILLED) and give every outstanding event to the callback before returning. Idempotent."""
