"""The relay on the event loop: the contract's surface, and the turns in which its sessions move.

All sockets are watched by one edge-triggered epoll, each registered once and never modified; the epoll's own descriptor is
what the event loop watches. So a session costs the loop nothing: no transport, no task, no future, no timer.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from lbproxy.domain.session import EndReason
from lbproxy.relay.aio.deadlines import NEVER, TICK_S, Deadlines
from lbproxy.relay.aio.flow import Flow, State
from lbproxy.relay.aio.half import BUFFER_BYTES, Half
from lbproxy.relay.aio.kernel import tcp_info
from lbproxy.relay.contract import (
    Event,
    EventsCallback,
    Outcome,
    RelayOptions,
    RelayStatistics,
    SessionView,
    SlotCounters,
    Socket,
    TcpView,
)

TURN_EVENTS: Final = 64
"""Events taken from the kernel in one turn, busy sessions continued in one, and sessions being reset looked at in one."""

TURN_DEADLINES: Final = 256
"""Deadlines judged in one turn, so that a long pause is not followed by one long turn of ends."""

RESET_POLL_S: Final = 0.01
"""How often a session that is being reset is looked at: no event says that the peer has acknowledged everything."""

_WATCHED: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
_UNIX: Final = socket.AF_UNIX
_CONNECTING: Final = State.CONNECTING


class AsyncioRelay:
    """The portable relay (see `lbproxy.relay.contract.Relay`). `clock` gives monotonic seconds."""

    name = "asyncio"
    doorway = None  # its sessions need socket objects

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_events: EventsCallback,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self._loop = loop
        self._on_events = on_events
        self._clock = clock
        self._flows: dict[int, Flow] = {}
        # By descriptor: the session, the half that reads from it, the half that writes to it.
        self._ends: dict[int, tuple[Flow, Half, Half]] = {}
        self._events: list[Event] = []
        self._busy: list[tuple[Flow, Half]] = []
        self._resetting: dict[Flow, None] = {}  # an ordered set: the first has waited longest
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._reset_timer: asyncio.TimerHandle | None = None
        self._sent: list[int] = []
        self._received: list[int] = []
        self._free_slots: list[int] = []
        self._submitted = self._connected = self._ended = self._turns = self._yields = 0
        self._closed = False
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._turn)

    # Counter slots

    def open_slot(self) -> int:
        if self._free_slots:
            slot = self._free_slots.pop()
            self._sent[slot] = self._received[slot] = 0
            return slot
        self._sent.append(0)
        self._received.append(0)
        return len(self._sent) - 1

    def close_slot(self, slot: int) -> None:
        self._free_slots.append(slot)

    def read_slot(self, slot: int) -> SlotCounters:
        return SlotCounters(self._sent[slot], self._received[slot])

    # Sessions

    def submit(self, session: int, client: Socket, upstream: Socket, options: RelayOptions) -> None:
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the relay is closed")
        client_fd, upstream_fd = client.fileno(), upstream.fileno()
        if client_fd < 0 or upstream_fd < 0:
            raise OSError(errno.EBADF, "a socket is closed")
        client_unix, upstream_unix = client.family == _UNIX, upstream.family == _UNIX
        # Urgent bytes stay in the stream. Set before anything can be read: later would be too late for the first one.
        if not options.urgent_inline:
            if not client_unix:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            if not upstream_unix:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._epoll.register(client_fd, _WATCHED)
        try:
            self._epoll.register(upstream_fd, _WATCHED)
        except OSError:
            self._epoll.unregister(client_fd)
            raise
        now = self._clock()
        upward = Half(client, upstream, self._sent, options.slot, thorough=client_unix)
        downward = Half(upstream, client, self._received, options.slot, thorough=upstream_unix)
        flow = Flow(self, session, upward, downward, options, now)
        self._flows[session] = flow
        self._ends[client_fd] = (flow, upward, downward)
        self._ends[upstream_fd] = (flow, downward, upward)
        self._submitted += 1
        if options.connect_timeout_ms:
            self.look_at(flow, now + options.connect_timeout_ms / 1000, now)
        if options.max_duration_ms:
            self.look_at(flow, now + options.max_duration_ms / 1000, now)

    def abort(self, session: int, reason: EndReason, *, reset: bool) -> bool:
        flow = self._flows.get(session)
        if flow is None:
            return False
        flow.end(reason, 0, self._clock(), reset=reset or flow.has_undelivered())
        return True

    def sessions(self) -> Sequence[SessionView]:
        now = self._clock()
        return [_view(flow, now, None, None) for flow in self._flows.values()]

    def look(self, session: int) -> SessionView | None:
        flow = self._flows.get(session)
        if flow is None:
            return None
        return _view(flow, self._clock(), tcp_info(flow.upward.source), tcp_info(flow.downward.source))

    def statistics(self) -> RelayStatistics:
        return RelayStatistics(
            submitted=self._submitted,
            connected=self._connected,
            ended=self._ended,
            pending_bytes=sum(
                flow.upward.pending_bytes() + flow.downward.pending_bytes() for flow in self._flows.values()
            ),
            turns=self._turns,
            yields=self._yields,
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        now = self._clock()
        for flow in list(self._flows.values()):
            flow.end(EndReason.KILLED, 0, now, reset=True)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        for timer in (self._timer, self._reset_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._reset_timer = None
        self._deliver_events()

    # What a session asks of its relay (`flow.Host`)

    def tell(self, event: Event) -> None:
        if type(event) is not Outcome:
            self._connected += 1
        if not self._events and not self._closed:
            self._loop.call_soon(self._deliver_events)
        self._events.append(event)

    def forget(self, flow: Flow) -> None:
        del self._flows[flow.session]
        del self._ends[flow.upward.source.fileno()]
        del self._ends[flow.downward.source.fileno()]
        self._ended += 1
        self._resetting.pop(flow, None)

    def release(self, sock: Socket) -> None:
        self._epoll.unregister(sock.fileno())

    def run_later(self, flow: Flow, half: Half) -> None:
        self._yields += 1
        half.queued = True
        if not self._busy:
            self._loop.call_soon(self._continue_busy)
        self._busy.append((flow, half))

    def look_at(self, flow: Flow, at: float, now: float) -> None:
        if at > (flow.armed - 1) * TICK_S:
            return  # in the bucket of the entry that counts, or later
        flow.armed = self._deadlines.add(flow.session, at, now)
        if at < self._timer_at:
            self._set_timer(now)

    def watch_reset(self, flow: Flow) -> None:
        self._resetting[flow] = None
        if self._reset_timer is None:
            self._reset_timer = self._loop.call_later(RESET_POLL_S, self._continue_resets)

    # Turns

    def _turn(self) -> int:
        """Take what the kernel has to say, at most `TURN_EVENTS`; how many there were."""
        events = self._epoll.poll(0, TURN_EVENTS)
        now = self._clock()
        self._turns += 1
        ends = self._ends
        for fd, flags in events:
            end = ends.get(fd)
            if end is None:
                continue  # closed earlier in this turn
            try:
                end[0].react(end[1], end[2], flags, now)
            except Exception as failure:  # noqa: BLE001  the wall around one session
                self._fell_over(end[0], failure, now)
        return len(events)

    def _continue_busy(self) -> None:
        busy, self._busy = self._busy[:TURN_EVENTS], self._busy[TURN_EVENTS:]
        if self._busy:
            self._loop.call_soon(self._continue_busy)
        now = self._clock()
        for flow, half in busy:
            try:
                flow.resume(half, now)
            except Exception as failure:  # noqa: BLE001  the wall around one session
                self._fell_over(flow, failure, now)

    def _continue_resets(self) -> None:
        now = self._clock()
        for flow in list(islice(self._resetting, TURN_EVENTS)):
            del self._resetting[flow]
            try:
                flow.deliver(now)
                if flow.state is State.RESETTING:
                    self._resetting[flow] = None
            except Exception as failure:  # noqa: BLE001  the wall around one session
                self._fell_over(flow, failure, now)
        self._reset_timer = (
            self._loop.call_later(RESET_POLL_S, self._continue_resets) if self._resetting else None
        )

    def _fell_over(self, flow: Flow, failure: Exception, now: float) -> None:
        self._loop.call_exception_handler(
            {"message": f"relay: session {flow.session} fell over", "exception": failure}
        )
        if flow.state is not State.ENDED:
            flow.end(EndReason.INTERNAL_ERROR, 0, now, reset=True)

    def _deliver_events(self) -> None:
        events, self._events = self._events, []
        if events:
            self._on_events(events)

    # Deadlines

    def _set_timer(self, now: float) -> None:
        at = self._deadlines.earliest()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = float("inf")
        if at is not None and not self._closed:
            self._timer_at = at
            self._timer = self._loop.call_later(max(0.0, at - now), self._judge)

    def _judge(self) -> None:
        """End the sessions whose time has come. What has arrived is moved first: after a pause of this process, bytes may
        wait in the kernel that came in time."""
        passes = 1 + 2 * len(self._flows) // TURN_EVENTS  # busy sockets come again and again
        while passes and self._turn() == TURN_EVENTS:
            passes -= 1
        now = self._clock()
        for tick, session in self._deadlines.due(now, TURN_DEADLINES):
            flow = self._flows.get(session)
            if flow is None or flow.armed != tick:
                continue
            try:
                self._look(flow, now)
            except Exception as failure:  # noqa: BLE001  the wall around one session
                self._fell_over(flow, failure, now)
        self._set_timer(now)

    def _look(self, flow: Flow, now: float) -> None:
        flow.armed = NEVER
        flow.keep_alive(now)
        limit = flow.limit()
        if limit is None:
            return
        at, reason = limit
        if at <= now:
            flow.expire(reason, now)
        else:
            self.look_at(flow, at, now)


def _view(flow: Flow, now: float, client_tcp: TcpView | None, upstream_tcp: TcpView | None) -> SessionView:
    return SessionView(
        session=flow.session,
        phase=flow.phase(),
        sent_bytes=flow.upward.count,
        received_bytes=flow.downward.count,
        age_s=now - flow.started_at,
        idle_s=now - flow.moved_at(),
        client_tcp=client_tcp,
        upstream_tcp=upstream_tcp,
    )
