"""The access log's thread: everything is written in order, the loop never waits, what does not fit is counted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.accesslog.record import Record
from lbproxy.accesslog.writer import BATCH_RECORDS, BATCH_WITHIN_S, PIECE_BYTES, AccessLog
from tests.patience import WITHIN_S

SHORT = Record(
    1e9, 0, "web", "10.0.0.9", 1, "web", "10.0.0.1:80", 1, 5, 6, 0.1, 0.2, 0.3, "client_eof", "relay", 0
)


class Timers:
    """Stands in for the loop's call_later: what is armed, fired by hand."""

    def __init__(self) -> None:
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self.ever = 0

    def __call__(self, delay_s: float, callback: Callable[[], None]) -> Any:
        self.ever += 1
        self.armed.append((delay_s, callback))

    def fire(self) -> None:
        armed, self.armed = self.armed, []
        for _, callback in armed:
            callback()


class Collected:
    """Takes what is written, and lets a test wait for it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._changed = threading.Condition()

    def __call__(self, piece: bytes) -> None:
        with self._changed:
            self.pieces.append(piece)
            self._changed.notify_all()

    def sessions(self) -> list[int]:
        return [json.loads(line)["session"] for line in b"".join(self.pieces).splitlines()]

    def wait_for(self, number: int) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sessions()) >= number, WITHIN_S)
        return self.sessions()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def collected() -> Collected:
    return Collected()


def fill(log: AccessLog, number: int, start: int = 0) -> None:
    for session in range(start, start + number):
        log.log(SHORT._replace(session=session))


def test_records_are_handed_over_when_the_timer_fires(timers: Timers, collected: Collected) -> None:
    log = AccessLog(collected, "json", AccessLogOptions(), timers)
    fill(log, 3)
    assert [delay for delay, _ in timers.armed] == [BATCH_WITHIN_S]
    assert not collected.pieces
    timers.fire()
    assert collected.wait_for(3) == [0, 1, 2]
    assert not timers.armed  # idle: nothing ticks
    fill(log, 1, start=3)
    assert len(timers.armed) == 1
    log.close()
    assert collected.sessions() == [0, 1, 2, 3]


def test_a_full_batch_does_not_wait_for_the_timer(timers: Timers, collected: Collected) -> None:
    log = AccessLog(collected, "json", AccessLogOptions(), timers)
    fill(log, BATCH_RECORDS)
    assert collected.wait_for(BATCH_RECORDS) == list(range(BATCH_RECORDS))
    fill(log, 10, start=BATCH_RECORDS)
    assert timers.ever == 1
    log.close()
    assert collected.sessions() == list(range(BATCH_RECORDS + 10))
    assert log.dropped == 0


def test_writes_are_whole_lines_of_at_most_a_pipes_atomic_size(timers: Timers, collected: Collected) -> None:
    log = AccessLog(collected, "json", AccessLogOptions(), timers)
    fill(log, 500)
    log.close()
    assert all(piece.endswith(b"\n") and len(piece) <= PIECE_BYTES for piece in collected.pieces)
    assert len(collected.pieces) > 20


def test_empty_sessions_are_left_out_where_configured(timers: Timers, collected: Collected) -> None:
    log = AccessLog(collected, "json", AccessLogOptions(skip_empty=True), timers)
    log.log(SHORT._replace(session=1, sent_bytes=0, received_bytes=0))
    log.log(SHORT._replace(session=2, sent_bytes=0, received_bytes=1))
    log.log(SHORT._replace(session=3, sent_bytes=1, received_bytes=0))
    log.close()
    assert collected.sessions() == [2, 3]
    assert log.dropped == 0


def test_what_does_not_fit_is_dropped_and_counted(timers: Timers) -> None:
    gate, entered = threading.Event(), threading.Event()
    written = Collected()

    def blocked(piece: bytes) -> None:
        entered.set()
        assert gate.wait(WITHIN_S)
        written(piece)

    log = AccessLog(blocked, "json", AccessLogOptions(), timers, queue_records=50)
    fill(log, 30)
    timers.fire()
    assert entered.wait(WITHIN_S)
    fill(log, 100, start=30)  # 20 of them fit
    timers.fire()
    dropped = log.dropped
    gate.set()
    log.close()
    assert dropped == 80
    assert written.sessions() == list(range(50))
    assert log.dropped == 80


def test_a_failing_write_is_counted_and_the_next_is_tried(timers: Timers) -> None:
    written = Collected()
    failing = [OSError(28, "No space left on device")]

    def sometimes(piece: bytes) -> None:
        if failing:
            raise failing.pop()
        written(piece)

    log = AccessLog(sometimes, "json", AccessLogOptions(), timers)
    fill(log, 3)
    timers.fire()
    fill(log, 2, start=3)
    log.close()
    assert written.sessions() == [3, 4]
    assert log.dropped == 3


def test_close_is_idempotent_and_later_records_are_counted(timers: Timers, collected: Collected) -> None:
    log = AccessLog(collected, "json", AccessLogOptions(), timers)
    fill(log, 1)
    log.close()
    log.close()
    fill(log, 2)
    timers.fire()
    assert collected.sessions() == [0]
    assert log.dropped == 2


@pytest.fixture(params=[True, False], ids=["blocking", "non-blocking"])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """The smallest pipe there is, and both kinds of stderr that a supervisor may hand us."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, request.param)
    yield read, write
    os.close(read)
    os.close(write)


def test_a_pipe_that_nobody_reads_holds_neither_the_loop_nor_the_end(
    timers: Timers, pipe: tuple[int, int]
) -> None:
    log = AccessLog(pipe[1], "json", AccessLogOptions(), timers)
    fill(log, 2000)
    log.close(within_s=0.05)
    assert log.dropped > 1900
    assert not [one for one in threading.enumerate() if "accesslog" in one.name]


def test_a_slow_reader_gets_every_line_whole(timers: Timers, pipe: tuple[int, int]) -> None:
    read, write = pipe
    log = AccessLog(write, "json", AccessLogOptions(), timers)
    fill(log, 300)
    timers.fire()
    got = b""
    while got.count(b"\n") < 300:
        assert select.select([read], [], [], WITHIN_S)[0]
        got += os.read(read, 1000)
    log.close()
    assert [json.loads(line)["session"] for line in got.splitlines()] == list(range(300))
    assert log.dropped == 0


def test_a_reader_that_has_gone_is_counted(timers: Timers) -> None:
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(write, "json", AccessLogOptions(), timers)
    fill(log, 5)
    log.close()
    os.close(write)
    assert log.dropped == 5


@pytest.mark.both_loops
async def test_the_loops_own_timer_hands_over(collected: Collected) -> None:
    log = AccessLog(collected, "text", AccessLogOptions(), asyncio.get_running_loop().call_later)
    fill(log, 1)
    written = asyncio.get_running_loop().run_in_executor(
        None,
        lambda: (
            collected._changed.wait_for(lambda: collected.pieces) if collected._changed.acquire() else None
        ),
    )
    await asyncio.wait_for(written, WITHIN_S)
    log.close()
    assert b"session=0 " in collected.pieces[0]
