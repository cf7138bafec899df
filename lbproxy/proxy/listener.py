"""The listener: its sockets, and the fast path from accept to a dial.

One reader callback drains `accept` in bounded batches; for each client: admit, route, then the dialer picks, connects and submits.
Overload (no descriptors, no memory) pauses accepting for a moment, is counted, and ends by itself.
"""

from __future__ import annotations

import _socket
import asyncio
import errno
import logging
import socket
from typing import Final, Literal

from lbproxy.domain.address import Address
from lbproxy.domain.session import EndReason, Phase, Rejection
from lbproxy.domain.strategy import Context
from lbproxy.proxy.admission import AddressRules, Capacity
from lbproxy.proxy.dialing import Dialer
from lbproxy.proxy.options import ListenerOptions
from lbproxy.proxy.routing import Route, is_mapped, original_destination
from lbproxy.proxy.sessions import Session
from lbproxy.proxy.sockets import (
    as_socket,
    bound_address,
    close_listening,
    listening_options,
    refuse,
    set_options,
)

logger = logging.getLogger(__name__)

# Accepts a turn of the loop, so that a flood of clients leaves room for the relay's events.
ACCEPT_BATCH: Final = 64
# As trio and HAProxy: long enough not to spin, short enough not to be felt as an outage.
OVERLOAD_PAUSE_S: Final = 0.1
_LONGEST_QUEUE: Final = 65536  # somaxconn is 16 bits in practice; a bound on errors that never pass
_OVERLOAD: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2): a client that has already gone, or a network error pending on its socket; the next one may be well.
_PASSING: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)


_Peer = tuple[str, int] | tuple[str, int, int, int] | str | bytes


class Listener:
    """Owns its listening sockets from `add` to `close`. Counters are plain integers that survive a reload."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, capacity: Capacity, dialer: Dialer, name: str
    ) -> None:
        self.name = name
        self.accepted = 0
        self.active = 0
        self.accept_pauses = 0
        self.rejected: dict[Rejection, int] = dict.fromkeys(Rejection, 0)
        self.sockets: dict[Address, _socket.socket] = {}
        self._bound: dict[Address, Address] = {}  # what the kernel made of each
        self.closing = False
        self._loop = loop
        self._capacity = capacity
        self._dialer = dialer
        self._listening = False
        self._overload: asyncio.TimerHandle | None = None

    def configure(self, options: ListenerOptions, route: Route) -> None:
        """What holds for new connections from now on; live sessions keep what they began with."""
        self.options = options
        self.route = route
        self.reset_on_failure = options.on_failure == "reset"
        self.closing = False
        self._rules = AddressRules(options)
        for address, listening in self.sockets.items():
            self._prepare(address, listening)
        self._put_in_order()
        if self._listening or not self.sockets:
            return
        self._resume()

    def add(self, address: Address, listening: _socket.socket) -> None:
        """Take over a bound socket and serve it. `configure` comes first."""
        self._prepare(address, listening)
        self.sockets[address] = listening
        self._bound[address] = bound_address(listening, address)
        self._put_in_order()
        if self._listening:
            self._watch(listening)
        else:
            self._resume()

    def _put_in_order(self) -> None:
        bound = self._bound
        wanted = [each for each in self.options.binds if each in bound]
        self._bound = {each: bound[each] for each in (*wanted, *bound)}

    def _prepare(self, address: Address, listening: _socket.socket) -> None:
        if address.family != "unix":
            set_options(listening, listening_options(self.options.tcp))
        listening.listen(self.options.backlog)

    @property
    def addresses(self) -> list[Address]:
        """Where it really listens, in configured order: ports chosen by the kernel filled in."""
        return list(self._bound.values())

    @property
    def state(self) -> Literal["accepting", "paused", "draining", "unbound"]:
        if self.closing:
            return "draining"
        if not self.sockets:
            return "unbound"
        return "accepting" if self._listening else "paused"

    # -- accepting

    def _watch(self, listening: _socket.socket) -> None:
        on_readable = self._on_readable if self._dialer.doorway is None else self._on_arrivals
        self._loop.add_reader(listening.fileno(), on_readable, listening)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            for listening in self.sockets.values():
                self._loop.remove_reader(listening.fileno())

    def _resume(self) -> None:
        if self._listening or self.closing or self._overload is not None:
            return
        self._listening = True
        for listening in self.sockets.values():
            self._watch(listening)

    def _on_readable(self, listening: _socket.socket) -> None:
        capacity = self._capacity
        accept = listening._accept  # type: ignore[attr-defined]  # noqa: SLF001 - the raw accept4, without a wrapper object
        family = listening.family
        limit = self.options.max_connections
        for _ in range(ACCEPT_BATCH):
            if self.active >= limit or capacity.active >= capacity.limit:
                self._wait_for_room()
                return
            try:
                fd, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _PASSING:
                    continue
                self._overloaded(error)
                return
            self.accepted += 1
            self._accepted(fd, family, peer)

    def _on_arrivals(self, listening: _socket.socket) -> None:
        """As `_on_readable`, through the relay's doorway."""
        capacity, doorway, family = self._capacity, self._dialer.doorway, listening.family
        limit = self.options.max_connections
        room = min(ACCEPT_BATCH, limit - self.active, capacity.limit - capacity.active)
        if room > 0:
            assert doorway is not None
            try:
                arrivals = doorway.accept(listening.fileno(), room)
            except OSError as error:
                if error.errno not in _PASSING:
                    self._overloaded(error)
                return
            self.accepted += len(arrivals)
            now = self._dialer.clock()
            for fd, host, port, gone in arrivals:
                self._let_in(fd, family, host, port, gone, now)
            doorway.flush()
        if self.active >= limit or capacity.active >= capacity.limit:
            self._wait_for_room()

    def _let_in(self, fd: int, family: int, host: str, port: int, gone: int, now: float) -> None:
        """Take over an arrival: the short way of a client that nothing is wrong with, and the wall around it."""
        session: Session | None = None
        try:
            if host.startswith("::ffff:") and is_mapped(host):
                host = host[7:]
            welcome = self._rules.open_to_all or not host or self._rules.admits(host)
            dialer = self._dialer
            if welcome and not gone and not self.route.transparent:
                context = Context(now, dialer.rng, host)
                session = Session(dialer.sessions.next_id(), self, self.route, host, port, context)
                self.active += 1
        except Exception:
            logger.exception("listener %s: a connection could not be admitted", self.name)
            as_socket(fd, family).close()
            return
        if session is not None:
            dialer.launch(session, fd, family)
        else:
            self._admit(as_socket(fd, family), host, port, gone)

    def _wait_for_room(self) -> None:
        """Let the kernel queue what comes until a session has ended, here or (for the process's limit) anywhere."""
        self._pause()
        self.accept_pauses += 1
        limit, whose = self.options.max_connections, "its limit"
        if self.active < limit:
            self._capacity.when_free(self._resume)
            limit, whose = self._capacity.limit, "the process's limit"
        dialer = self._dialer
        message = f"listener {self.name}: at {whose} of {limit} connections; the kernel queues what comes"
        dialer.complaints.say(logging.WARNING, f"limit {self.name}", message, dialer.clock())

    def _overloaded(self, error: OSError) -> None:
        self._pause()
        self.accept_pauses += 1
        known = error.errno in _OVERLOAD
        what = (
            f"accept paused for {OVERLOAD_PAUSE_S * 1000:.0f} ms" if known else "accept failed, trying again"
        )
        level = logging.WARNING if known else logging.ERROR
        dialer = self._dialer
        dialer.complaints.say(
            level, f"accept {self.name}", f"listener {self.name}: {what}: {error}", dialer.clock()
        )
        self._overload = self._loop.call_later(OVERLOAD_PAUSE_S, self._overload_passed)

    def _overload_passed(self) -> None:
        self._overload = None
        self._resume()

    def _accepted(self, fd: int, family: int, peer: _Peer) -> None:
        """Take over what `accept` gave."""
        client = as_socket(fd, family)
        client.setblocking(False)
        host, port = peer[:2] if isinstance(peer, tuple) else ("", 0)
        # A client that was reset in the backlog is still handed out by accept; it must not cost an upstream connection.
        self._admit(client, host, port, client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _admit(self, client: _socket.socket, host: str, port: int, gone: int) -> None:
        """Take over an accepted socket. The wall of the accept path: what goes wrong here concerns one client."""
        try:
            if host.startswith("::ffff:") and is_mapped(host):
                host = host[7:]
            if host and not self._rules.open_to_all and not self._rules.admits(host):
                self._turn_away(client, Rejection.ACL)
                return
            dialer = self._dialer
            now = dialer.clock()
            context = Context(now, dialer.rng, host)
            session = Session(dialer.sessions.next_id(), self, self.route, host, port, context)
            lost = self.route.transparent and not gone and not self._has_destination(context, client, port)
            self.active += 1
        except Exception:
            logger.exception("listener %s: a connection could not be admitted", self.name)
            client.close()
            return
        if gone:
            dialer.turn_down(session, client, EndReason.CLIENT_GONE, Phase.ACCEPT, gone)
        elif lost:
            dialer.turn_down(session, client, EndReason.NO_ENDPOINT, Phase.ROUTE, 0)
        else:
            dialer.begin(session, client)

    def _has_destination(self, context: Context, client: _socket.socket, port: int) -> bool:
        """Fill in where the client meant to go. False for a loop: it meant this listener, or is one of our own dials."""
        if (context.client, port) in self._dialer.own_dials:
            return False
        context.destination = original_destination(client)
        return context.destination is not None

    def _turn_away(self, client: _socket.socket, reason: Rejection) -> None:
        self.rejected[reason] += 1
        refuse(client, reset=True)

    # -- from the dialer

    def turned_away_full(self) -> None:
        self.rejected[Rejection.FULL] += 1

    def session_ended(self) -> None:
        self.active -= 1
        if not self._listening and self.active < self.options.max_connections:
            self._resume()

    # -- closing

    def remove(self, address: Address) -> None:
        """Stop listening on one address; what was already in its accept queue is served first."""
        listening = self.sockets[address]
        if self._listening:
            self._loop.remove_reader(listening.fileno())
        self._empty_queue(listening)
        del self.sockets[address], self._bound[address]
        close_listening(listening, address)

    def hand_over(self, address: Address) -> _socket.socket:
        """Give up a bound socket with its accept queue, to another listener that owns it from now on."""
        listening = self.sockets.pop(address)
        del self._bound[address]
        if self._listening:
            self._loop.remove_reader(listening.fileno())
        return listening

    def close(self) -> None:
        """Stop listening altogether. Sessions go on."""
        for address in list(self.sockets):
            self.remove(address)
        self.closing = True
        self._listening = False
        self._capacity.forget(self._resume)
        if self._overload is not None:
            self._overload.cancel()
            self._overload = None

    def _empty_queue(self, listening: _socket.socket) -> None:
        """Closing a listening socket resets what its queue holds, so serve that first, up to the limits."""
        accept = listening._accept  # type: ignore[attr-defined]  # noqa: SLF001
        for _ in range(_LONGEST_QUEUE):
            if self.active >= self.options.max_connections or self._capacity.active >= self._capacity.limit:
                return
            try:
                fd, peer = accept()
            except OSError as error:
                if error.errno in _PASSING:
                    continue
                return
            self.accepted += 1
            self._accepted(fd, listening.family, peer)
