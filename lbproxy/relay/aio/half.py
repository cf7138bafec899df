"""One direction of a session: bytes from one socket to the other, and what of them did not fit.

A half decides nothing: `move` does as much as it can and says how it stopped. It reads only when everything it read before
has been written, so what it holds is bounded by one buffer.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from lbproxy.relay.contract import Socket

BUFFER_BYTES: Final = 64 * 1024
"""The size of the shared buffer, and the most that one direction of a session keeps in user space."""

TURN_BYTES: Final = 256 * 1024
"""What one direction may move before the other sessions get their turn."""


class Stop(Enum):
    """Why `move` stopped."""

    EMPTY = "empty"  # the source has nothing more now; an event will tell
    BLOCKED = "blocked"  # the sink takes nothing more now; an event will tell
    BUDGET = "budget"  # both could go on
    EOF = "eof"  # the source has ended and every byte was written
    SOURCE_FAILED = "source failed"
    SINK_FAILED = "sink failed"


_EMPTY = Stop.EMPTY
_BLOCKED = Stop.BLOCKED


class Half:
    """Bytes from `source` to `sink`, counted in `count` and live in `counters[slot]`."""

    __slots__ = (
        "count",
        "counters",
        "done",
        "error",
        "first_at",
        "moved_at",
        "pending",
        "queued",
        "readable",
        "sink",
        "slot",
        "source",
        "thorough",
        "uncounted_bytes",
    )

    def __init__(
        self, source: Socket, sink: Socket, counters: list[int], slot: int, *, thorough: bool
    ) -> None:
        self.source = source
        self.sink = sink
        self.counters = counters
        self.slot = slot
        # Whether only EAGAIN proves the source empty. On TCP a short read proves it, too, except at an urgent mark and
        # before an end; on unix sockets never (a message that carries descriptors ends a read).
        self.thorough = thorough
        self.readable = False  # the source may hold bytes that were not read yet
        self.done = False  # nothing will be moved any more
        self.queued = False  # waits in the relay's run queue
        self.pending: memoryview | None = None
        self.uncounted_bytes = 0  # of `pending`: not the client's
        self.count = 0
        self.first_at = 0.0  # when the first byte was read; 0 before that
        self.moved_at = 0.0  # when the last byte was read or written
        self.error = 0  # the errno behind *_FAILED

    def move(self, buffer: bytearray, view: memoryview, now: float) -> Stop:  # noqa: C901  unrolled: the hot path
        """Write what is pending, then read and write through `buffer` (whose whole is `view`) for one turn's budget.

        EINTR is not handled: Python repeats an interrupted call by itself (PEP 475).
        """
        if self.pending is not None:
            stop = self._flush(now)
            if stop is not _EMPTY:
                return stop
        if not self.readable:
            return _EMPTY
        recv_into = self.source.recv_into
        send = self.sink.send
        budget = TURN_BYTES
        while budget > 0:
            try:
                size = recv_into(buffer)
            except BlockingIOError:
                self.readable = False
                return _EMPTY
            except OSError as failure:
                self.error = failure.errno or 0
                return Stop.SOURCE_FAILED
            if not size:
                return Stop.EOF
            self.moved_at = now
            if not self.first_at:
                self.first_at = now
            try:
                sent = send(view if size == BUFFER_BYTES else view[:size])
            except BlockingIOError:
                sent = 0
            except OSError as failure:
                self.error = failure.errno or 0
                return Stop.SINK_FAILED
            self.count += sent
            self.counters[self.slot] += sent
            if size < BUFFER_BYTES and not self.thorough:
                self.readable = False
            if sent < size:
                self.pending = memoryview(bytes(view[sent:size]))
                stop = self._flush(now)
                if stop is not _EMPTY:
                    return stop
            if not self.readable:
                return _EMPTY
            budget -= size
        return Stop.BUDGET

    def _flush(self, now: float) -> Stop:
        """Write pending bytes until none is left (EMPTY) or the kernel refuses: a short result alone proves nothing."""
        pending = self.pending
        while pending:
            try:
                sent = self.sink.send(pending)
            except BlockingIOError:
                self.pending = pending
                return _BLOCKED
            except OSError as failure:
                self.error = failure.errno or 0
                return Stop.SINK_FAILED
            pending = pending[sent:]
            self.moved_at = now
            if self.uncounted_bytes:
                own = min(sent, self.uncounted_bytes)
                self.uncounted_bytes -= own
                sent -= own
            self.count += sent
            self.counters[self.slot] += sent
        self.pending = None
        return _EMPTY

    def pending_bytes(self) -> int:
        return len(self.pending) if self.pending is not None else 0
