"""The access log's way out: records are gathered on the event loop, formatted and written by one thread.

The loop never waits for the log. What cannot be written fast enough is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Final

from lbproxy.accesslog.format import Format, formatter
from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.accesslog.record import Record

BATCH_RECORDS: Final = 1024
BATCH_WITHIN_S: Final = 0.2
QUEUE_RECORDS: Final = 65536
"""Records on their way to the thread; a full queue is about 30 MB."""

PIECE_BYTES: Final = select.PIPE_BUF
"""Bytes a write: what a pipe takes as one, so that lines of others on the same stderr never land inside one of ours. Small
pieces also give the interpreter back to the loop often."""

CLOSE_WITHIN_S: Final = 2.0

_POLL_S: Final = 0.1

Write = Callable[[bytes], None]
Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class AccessLog:
    """Takes records on the loop's thread, from construction to `close`. Owns its thread, not the descriptor.

    `target` is a descriptor (blocking or not), or a callable that takes whole lines and may raise OSError. `later` is the
    loop's `call_later`.
    """

    def __init__(
        self,
        target: int | Write,
        kind: Format,
        options: AccessLogOptions,
        later: Later,
        *,
        queue_records: int = QUEUE_RECORDS,
    ) -> None:
        self._later = later
        self._batch: list[Record] = []
        self._armed = False
        self._closed = False
        self._limit = queue_records
        self._handed = 0
        self._refused = 0
        self._queue: SimpleQueue[list[Record] | None] = SimpleQueue()
        self._sink = _Sink(target, kind, options, self._queue)
        # A daemon: a reader of the log that has stopped reading must not keep a drained process alive. `close` flushes.
        self._thread = threading.Thread(target=self._sink.run, name="lbproxy-accesslog", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records lost since the start: the queue was full, or the write failed."""
        return self._refused + self._sink.lost

    def log(self, record: Record) -> None:
        """Take one record. An append and two comparisons; never waits, never raises."""
        self._batch.append(record)
        if not self._armed or len(self._batch) >= BATCH_RECORDS:
            self._more()

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Write what is queued and end the thread, or give up after `within_s` and count the rest as dropped. Idempotent.

        Waits; call it last, or in a thread.
        """
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        self._armed = False  # so that every later record is seen, and counted
        self._sink.give_up_at = time.monotonic() + within_s
        self._queue.put(None)
        self._thread.join(within_s + 2 * _POLL_S)
        if self._thread.is_alive():  # held inside a write that nothing can interrupt
            self._refused += self._handed - self._sink.taken

    def _more(self) -> None:
        if self._closed:
            self._refused += len(self._batch)
            self._batch.clear()
            return
        if not self._armed:
            self._armed = True
            self._later(BATCH_WITHIN_S, self._due)
        if len(self._batch) >= BATCH_RECORDS:
            self._hand_over()

    def _due(self) -> None:
        self._armed = False
        if not self._closed:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        room = self._limit - (self._handed - self._sink.taken)
        if len(batch) > room:
            self._refused += len(batch) - max(0, room)
            del batch[max(0, room) :]
        if batch:
            self._handed += len(batch)
            self._queue.put(batch)


class _Sink:
    """The thread's side. `taken` and `lost` are written by the thread alone and read by the loop."""

    def __init__(
        self,
        target: int | Write,
        kind: Format,
        options: AccessLogOptions,
        queue: SimpleQueue[list[Record] | None],
    ) -> None:
        self._queue = queue
        self._line = formatter(kind)
        self._skip_empty = options.skip_empty
        self._write: Write = self._write_descriptor
        if isinstance(target, int):
            self._descriptor = target
            self._poll = select.poll()
            self._poll.register(target, select.POLLOUT)
        else:
            self._write = target
        self.taken = 0
        self.lost = 0
        self.give_up_at: float | None = None

    def run(self) -> None:
        while (batch := self._queue.get()) is not None:
            for piece, records in self._pieces(batch):
                try:
                    if piece:
                        self._write(piece)
                except OSError:
                    # A full disk, a reader that has gone or stalled: counted; the next piece is tried again.
                    self.lost += records
                self.taken += records

    def _pieces(self, batch: Sequence[Record]) -> Iterator[tuple[bytes, int]]:
        """The lines in pieces of at most PIECE_BYTES, each with the number of records it settles."""
        lines: list[bytes] = []
        size = settled = 0
        for record in batch:
            if self._skip_empty and not record.sent_bytes and not record.received_bytes:
                settled += 1
                continue
            line = self._line(record)
            if lines and size + len(line) > PIECE_BYTES:
                yield b"".join(lines), settled
                lines, size, settled = [], 0, 0
            lines.append(line)
            size += len(line)
            settled += 1
        yield b"".join(lines), settled

    def _write_descriptor(self, piece: bytes) -> None:
        """Raises OSError, and TimeoutError when the log is being closed and the reader does not read."""
        view = memoryview(piece)
        while view:
            # Asked first also on a blocking descriptor: with PIPE_BUF bytes free, the write does not block.
            while not self._poll.poll(self._patience_s() * 1000):
                if not self._patience_s():
                    raise TimeoutError
            with contextlib.suppress(BlockingIOError):  # others wrote in between: ask again
                view = view[os.write(self._descriptor, view) :]

    def _patience_s(self) -> float:
        """How long to wait before looking again whether the log is being closed; 0 once its time is over."""
        if self.give_up_at is None:
            return _POLL_S
        return min(_POLL_S, max(0.0, self.give_up_at - time.monotonic()))
