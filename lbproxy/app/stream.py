"""Writing event lines to a stream that somebody else may have stopped reading, without ever waiting for that somebody.

A full pipe would hold a plain write, and with it the event loop, the proxy's sessions and its signals, for as long as the
log's reader sleeps.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

PENDING_LINES: Final = 1000
"""Lines kept for a reader that is late; beyond that the oldest is lost, and how many were is told."""

PATIENCE_MS: Final = 5
"""How long the first line that meets a full pipe waits: longer than a reader that is alive needs for its next turn."""

CLOSE_WITHIN_S: Final = 1.0

Write = Callable[[bytes], int]


class PatientHandler(logging.Handler):
    """Writes whole lines to a descriptor; what does not go out at once goes with the next line, or at `close`.

    Owns nothing but its own way to the descriptor, which `close` gives up.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lost = 0
        self.descriptor = descriptor
        self._told = 0
        self._pending: deque[bytes] = deque()
        self._stack = contextlib.ExitStack()
        self._write = _without_waiting(descriptor, self._stack)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        patience_ms = 0 if self._pending else PATIENCE_MS
        if self.lost > self._told and not self._pending:
            self._told = self.lost
            lost = logging.makeLogRecord(record.__dict__)
            lost.levelno, lost.levelname, lost.exc_info = logging.WARNING, "WARNING", None
            lost.msg, lost.args = f"log: {self.lost} lines lost so far, its reader was too slow", ()
            self._take(lost)
        self._take(record)
        self._go_on(patience_ms)

    def _take(self, record: logging.LogRecord) -> None:
        self._pending.append(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        if len(self._pending) > PENDING_LINES:
            # The first may be half written: its rest has to go out, or the next line would begin in its middle.
            del self._pending[1]
            self.lost += 1

    def close(self) -> None:
        """Write what is left, as far as the reader takes it within a moment."""
        deadline = time.monotonic() + CLOSE_WITHIN_S
        with self.lock or contextlib.nullcontext():
            while self._pending and (left_s := deadline - time.monotonic()) > 0:
                self._go_on(int(left_s * 1000) + 1)
            self._pending.clear()
            self._stack.close()
        super().close()

    def _go_on(self, patience_ms: int) -> None:
        try:
            while self._pending:
                if not self._poll.poll(patience_ms):
                    return
                patience_ms = 0
                line = self._pending[0]
                written = self._write(line)
                if written < len(line):
                    self._pending[0] = line[written:]
                else:
                    self._pending.popleft()
        except BlockingIOError:
            return  # others wrote in between; the next line tries again
        except OSError:
            # A full disk, a reader that has gone for good: there is nowhere to say so.
            self.lost += len(self._pending)
            self._pending.clear()


def handler_for(stream: TextIO) -> logging.Handler:
    """The handler for stderr: the root logger's own, if it has one; a stream that is no descriptor (a test's) gets a plain one."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return logging.StreamHandler(stream)
    stream.flush()
    for present in logging.getLogger().handlers:
        if isinstance(present, PatientHandler) and present.descriptor == descriptor:
            return present  # with what it has not written yet
    return PatientHandler(descriptor)


def _without_waiting(descriptor: int, stack: contextlib.ExitStack) -> Write:
    """A write to the descriptor that raises BlockingIOError instead of waiting.

    O_NONBLOCK on the descriptor itself would hold for everyone who shares it, the shell we were started from included.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        own = stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
        return lambda data: own.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if stat.S_ISFIFO(mode):
        try:
            again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # Another user's pipe, or no /proc: asked first, with room for PIPE_BUF, it hardly ever waits.
            return lambda data: os.write(descriptor, data[: select.PIPE_BUF])
        stack.callback(os.close, again)
        return lambda data: os.write(again, data)
    return lambda data: os.write(descriptor, data)
