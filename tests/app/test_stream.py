"""Event lines never wait for whoever reads them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lbproxy.app.stream import PENDING_LINES, PatientHandler

Ends = tuple[int, int]


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Where to read, and where to write."""
    if request.param == "pipe":
        reading, writing = os.pipe()
        yield reading, writing
        os.close(reading)
        os.close(writing)
    else:
        with ExitStack() as stack:
            one, other = map(stack.enter_context, socket.socketpair())
            yield one.fileno(), other.fileno()


@pytest.fixture
def handler(ends: Ends) -> Iterator[PatientHandler]:
    made = PatientHandler(ends[1])
    yield made
    made.close()


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("lbproxy.app", logging.INFO, __file__, 1, text, None, None)


def read_lines(
    reading: int, enough: Callable[[bytes], bool], then: Callable[[], None] = lambda: None
) -> bytes:
    got = b""
    while not enough(got):
        got += os.read(reading, 65536)
        then()
    return got


def test_lines_go_out_at_once(ends: Ends, handler: PatientHandler) -> None:
    handler.emit(line("one"))
    handler.emit(line("zwölf"))
    assert os.read(ends[0], 100) == "one\nzwölf\n".encode()


def test_reader_that_sleeps_is_not_waited_for_and_gets_whole_lines(
    ends: Ends, handler: PatientHandler
) -> None:
    long = "x" * 5000
    for number in range(400):
        handler.emit(line(f"{number} {long}"))
    got = read_lines(ends[0], lambda got: got.endswith(b"last\n"), lambda: handler.emit(line("last")))
    lines = got.decode().splitlines()
    assert lines[:400] == [f"{number} {long}" for number in range(400)]
    assert set(lines[400:]) == {"last"}
    assert handler.lost == 0


def test_what_is_too_much_is_lost_and_counted(ends: Ends, handler: PatientHandler) -> None:
    long = "x" * 5000
    for number in range(PENDING_LINES + 500):
        handler.emit(line(f"{number} {long}"))
    assert handler.lost > 0
    # Reading goes on until the backlog is out; the next line then tells of the loss.
    told = b"lines lost so far"
    got = read_lines(ends[0], lambda got: told in got, lambda: handler.emit(line("more")))
    assert all(text.endswith((long, "more", "too slow", "")) for text in got.decode().splitlines()[:-1])


def test_reader_that_has_gone_is_no_error(ends: Ends) -> None:
    reading, writing = os.pipe()
    handler = PatientHandler(writing)
    os.close(reading)
    handler.emit(line("nobody"))
    assert handler.lost == 1
    handler.close()
    os.close(writing)


def test_file_is_written_like_any(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("wb") as file:
        handler = PatientHandler(file.fileno())
        handler.emit(line("one"))
        handler.close()
    assert path.read_bytes() == b"one\n"


def test_descriptor_others_share_stays_as_it_is(ends: Ends, handler: PatientHandler) -> None:
    handler.emit(line("one"))
    assert os.get_blocking(ends[1])
