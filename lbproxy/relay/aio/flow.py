"""One session: two halves, and the decisions about them.

| state      | what happens                                                        | leaves for                                   |
|------------|---------------------------------------------------------------------|----------------------------------------------|
| CONNECTING | nothing is read; the upstream's connect is awaited                  | RELAYING; ENDED (failed, timed out, aborted)  |
| RELAYING   | both halves move; an EOF goes across as a FIN and ends its half     | RESETTING; ENDED (both halves done, a limit)  |
| RESETTING  | one side was reset: what it had sent is delivered, then the other   | ENDED                                        |
|            | side is reset, too                                                  |                                              |
| ENDED      | the Outcome is on its way; the sockets are closed or given back     |                                              |
"""

from __future__ import annotations

import errno
import socket
from enum import Enum
from select import EPOLLERR, EPOLLHUP, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from typing import Final, Protocol

from lbproxy.domain.errors import dial_cause
from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.aio import kernel, limits
from lbproxy.relay.aio.deadlines import NEVER
from lbproxy.relay.aio.half import Half, Stop
from lbproxy.relay.aio.reset import Reset
from lbproxy.relay.contract import KEEPALIVE_AFTER_MS, Connected, Event, Outcome, RelayOptions, Socket

_ODD: Final = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI


class State(Enum):
    """See the table above."""

    CONNECTING = "connecting"
    RELAYING = "relaying"
    RESETTING = "resetting"
    ENDED = "ended"


# A global is read faster than an enum's member, and these are read for every event.
_CONNECTING, _RELAYING, _RESETTING, _ENDED = State


class Host(Protocol):
    """What a session asks of the relay it lives in."""

    buffer: bytearray
    view: memoryview

    def tell(self, event: Event) -> None:
        """Put an event into the next batch."""

    def forget(self, flow: Flow) -> None:
        """The session has ended; its sockets are still open."""

    def release(self, sock: Socket) -> None:
        """Stop watching a socket that will live on."""

    def run_later(self, flow: Flow, half: Half) -> None:
        """Move this half again after the other sessions had their turn."""

    def look_at(self, flow: Flow, at: float, now: float) -> None:
        """Ask for the session's deadline at this time or earlier."""

    def watch_reset(self, flow: Flow) -> None:
        """Call `deliver` every few milliseconds until the session has ended."""


class Flow:
    """A session between `submit` and its Outcome. `now` is always the relay's clock, read once a turn."""

    __slots__ = (
        "armed",
        "connected_at",
        "downward",
        "first_eof",
        "half_closed_at",
        "host",
        "keepalive_at",
        "options",
        "reset",
        "session",
        "started_at",
        "state",
        "upward",
    )

    def __init__(
        self, host: Host, session: int, upward: Half, downward: Half, options: RelayOptions, now: float
    ) -> None:
        self.host = host
        self.session = session
        self.upward = upward  # client -> upstream
        self.downward = downward  # upstream -> client
        self.options = options
        self.started_at = now
        self.connected_at: float | None = None
        self.half_closed_at: float | None = None
        self.keepalive_at: float | None = None  # when to set it; None: not yet, or not any more
        self.first_eof = EndReason.CLIENT_EOF
        self.reset: Reset | None = None
        self.armed = NEVER  # the tick of the deadline entry that counts
        self.state = _CONNECTING

    # What the sockets say

    def react(self, source: Half, sink: Half, flags: int, now: float) -> None:
        """An event on the socket that `source` reads from and `sink` writes to."""
        if self.state is not _RELAYING:
            self._react_elsewhere(source, flags, now)
            return
        if flags & _ODD:
            source.thorough = True
            if flags & EPOLLERR:
                error = kernel.take_error(source.source)
                if error:
                    self._fail(source, error, now)
                    return
        if flags & ~EPOLLOUT:
            source.readable = True
        if sink.pending is not None:
            self.advance(sink, now)
            if self.state is not _RELAYING:
                return
        if source.readable and source.pending is None and not source.queued and not source.done:
            stop = source.move(self.host.buffer, self.host.view, now)
            if stop is not Stop.EMPTY and stop is not Stop.BLOCKED:
                self._stopped(source, stop, now)

    def resume(self, half: Half, now: float) -> None:
        """Go on with a half that had used up its budget."""
        half.queued = False
        if self.state is _RELAYING:
            self.advance(half, now)
        elif self.state is _RESETTING:
            self.deliver(now)

    def advance(self, half: Half, now: float) -> None:
        """Move one half as far as it goes."""
        if half.done:
            return
        stop = half.move(self.host.buffer, self.host.view, now)
        if stop is not Stop.BLOCKED and (stop is not Stop.EMPTY or self.state is _RESETTING):
            self._stopped(half, stop, now)

    def _react_elsewhere(self, source: Half, flags: int, now: float) -> None:
        if self.state is _CONNECTING:
            if source is self.downward:
                self._upstream_answered(flags, now)
                return
            # A unix client that has written and closed shows a hang-up without an error, where a TCP one shows its FIN.
            if flags & EPOLLERR or (flags & EPOLLHUP and source.source.family != socket.AF_UNIX):
                self.end(EndReason.CLIENT_GONE, kernel.take_error(source.source), now, reset=True)
                return
            source.readable = bool(flags & ~EPOLLOUT)
            if flags & _ODD:
                source.thorough = True
        elif self.state is _RESETTING:
            assert self.reset is not None
            if source is self.reset.half:
                return  # it is dead, and is read to its end anyway
            if flags & EPOLLERR and kernel.take_error(source.source):
                self._end_reset(now)
            else:
                self.deliver(now)

    def _stopped(self, half: Half, stop: Stop, now: float) -> None:
        if stop is Stop.BUDGET:
            self.host.run_later(self, half)
        elif stop is Stop.SINK_FAILED:
            if self.state is _RESETTING:
                self._end_reset(now)
            else:
                self._fail(self._opposite(half), half.error, now)
        elif self.state is _RESETTING:
            half.done = True
        elif stop is Stop.EOF:
            self._close_half(half, now)
        else:
            self._fail(half, half.error, now)

    def _opposite(self, half: Half) -> Half:
        return self.downward if half is self.upward else self.upward

    # Connecting

    def _upstream_answered(self, flags: int, now: float) -> None:
        upstream = self.downward.source
        error = 0
        if flags & (EPOLLERR | EPOLLHUP):
            error = kernel.take_error(upstream)
            # A reset behind bytes is no failed connect: the bytes are delivered, then the reset.
            answered = error == errno.ECONNRESET and kernel.unread_bytes(upstream) > 0
            if error and not answered:
                self._connect_failed(error, now)
                return
            if not error and not kernel.is_connected(upstream):
                self._connect_failed(errno.ENOTCONN, now)
                return
        elif not flags & EPOLLOUT:
            return
        elif kernel.is_connected_to_itself(upstream):
            self._connect_failed(errno.ECONNREFUSED, now)
            return
        self._connected(now)
        if error:
            self._fail(self.downward, error, now)
            return
        if flags & _ODD:
            self.downward.thorough = True
        self.downward.readable = bool(flags & ~EPOLLOUT)
        if self.upward.pending is not None or self.upward.readable:
            self.advance(self.upward, now)
        if self.downward.readable and self.state is _RELAYING:
            self.advance(self.downward, now)

    def _connected(self, now: float) -> None:
        self.state = _RELAYING
        self.connected_at = now
        self.host.tell(Connected(self.session, now - self.started_at))
        options = self.options
        if options.first_bytes:
            self.upward.pending = memoryview(options.first_bytes)
            self.upward.uncounted_bytes = len(options.first_bytes)
        if options.idle_timeout_ms:
            self.host.look_at(self, now + options.idle_timeout_ms / 1000, now)
        if options.keepalive is not None:
            self.keepalive_at = now + KEEPALIVE_AFTER_MS / 1000
            self.host.look_at(self, self.keepalive_at, now)

    def keep_alive(self, now: float) -> None:
        """Called when the session is looked at: its keepalive becomes due only once."""
        if self.state is not _RELAYING or self.keepalive_at is None:
            return
        if now < self.keepalive_at:
            self.host.look_at(self, self.keepalive_at, now)
            return
        self.keepalive_at = None
        assert self.options.keepalive is not None
        kernel.keep_alive(self.downward.source, self.options.keepalive)

    def _connect_failed(self, error: int, now: float) -> None:
        reason = dial_cause(error, kernel.family(self.downward.source)).reason
        self._give_client_back(reason, error, now)

    def _give_client_back(self, reason: EndReason, error: int, now: float) -> None:
        client = self.upward.source
        self.host.forget(self)
        self.host.release(client)
        self.downward.source.close()
        self._tell_outcome(reason, error, now, client)

    # One half ends

    def _close_half(self, half: Half, now: float) -> None:
        """`half` has read its EOF and written every byte before it: the FIN goes across."""
        half.done = True
        if self.upward.done and self.downward.done:
            # close() sends the FIN, after what the kernel still holds. Both queues were read to their ends.
            self.end(self.first_eof, 0, now, reset=False)
            return
        try:
            half.sink.shutdown(socket.SHUT_WR)
        except OSError as failure:
            # ENOTCONN: the sink is closed already, without having sent a FIN that we read. That is a reset.
            error = kernel.take_error(half.sink) or failure.errno or errno.ENOTCONN
            self._fail(self._opposite(half), error, now)
            return
        self.half_closed_at = now
        self.first_eof = EndReason.CLIENT_EOF if half is self.upward else EndReason.UPSTREAM_EOF
        if self.options.half_close_timeout_ms:
            self.host.look_at(self, now + self.options.half_close_timeout_ms / 1000, now)

    # One side was reset

    def _fail(self, half: Half, error: int, now: float) -> None:
        """The source of `half` was reset, or timed out. What it had sent is delivered first."""
        self.state = _RESETTING
        lost = self._opposite(half)
        lost.done = True
        lost.pending = None
        reason = EndReason.CLIENT_RESET if half is self.upward else EndReason.UPSTREAM_RESET
        self.reset = Reset(half, reason, error, now, self.options.half_close_timeout_ms)
        half.readable = half.thorough = True
        self.deliver(now)
        if self.state is _RESETTING:
            self.host.watch_reset(self)

    def deliver(self, now: float) -> None:
        """Go on with a reset: deliver, then wait until the other side has acknowledged it all, then reset that side."""
        if self.state is not _RESETTING:
            return
        assert self.reset is not None
        if not self.reset.half.queued:
            self.advance(self.reset.half, now)
            if self.state is not _RESETTING:
                return
        if self.reset.is_over(now):
            self._end_reset(now)

    def _end_reset(self, now: float) -> None:
        assert self.reset is not None
        self.end(self.reset.reason, self.reset.error, now, reset=True)

    # Limits, and the end

    def limit(self) -> limits.Limit | None:
        """When this session ends if no byte moves until then, and why. None: never."""
        if self.state is _CONNECTING:
            return limits.while_connecting(self.options, self.started_at)
        if self.state is _RELAYING:
            return limits.while_relaying(self.options, self.started_at, self.moved_at(), self.half_closed_at)
        return None  # a reset has a clock of its own

    def moved_at(self) -> float:
        """When the last byte moved; without one, when the session connected or was submitted."""
        return max(self.upward.moved_at, self.downward.moved_at) or self.connected_at or self.started_at

    def expire(self, reason: EndReason, now: float) -> None:
        """A limit was reached."""
        if reason is EndReason.CONNECT_TIMEOUT:
            self._give_client_back(reason, 0, now)
        else:
            self.end(reason, 0, now, reset=self.has_undelivered())

    def has_undelivered(self) -> bool:
        """Whether a FIN now would make a truncated stream look whole."""
        return self.state is _RESETTING or any(
            half.pending is not None or kernel.unread_bytes(half.source)
            for half in (self.upward, self.downward)
        )

    def end(self, reason: EndReason, error: int, now: float, *, reset: bool) -> None:
        """Close both sockets and tell the Outcome."""
        self.host.forget(self)
        close = kernel.close_with_reset if reset else Socket.close
        close(self.upward.source)
        close(self.downward.source)
        self._tell_outcome(reason, error, now, None)

    def phase(self) -> Phase:
        if self.connected_at is None:
            return Phase.CONNECT
        return Phase.RELAY if self.half_closed_at is None else Phase.HALF_CLOSED

    def _tell_outcome(self, reason: EndReason, error: int, now: float, client: Socket | None) -> None:
        started_at, connected_at, first_at = self.started_at, self.connected_at, self.downward.first_at
        self.state = _ENDED
        self.host.tell(
            Outcome(
                self.session,
                reason,
                self.phase(),
                self.upward.count,
                self.downward.count,
                None if connected_at is None else connected_at - started_at,
                first_at - started_at if first_at else None,
                now - started_at,
                error,
                client,
            )
        )
