"""The watchdog over the relay's threads: whom it ends, how it says so, and whom it leaves alone.

It counts beats and knows no time, so each case is a count: what a thread did between two looks.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.patience import WITHIN_S
from tests.relay.native.test_driver import build, run

pytestmark = [
    pytest.mark.skipif(
        shutil.which("cc") is None and not os.environ.get("CI"), reason="there is no C compiler"
    ),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver"))


def passes(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Let real time pass; whether the process lives through it."""
    end = os.pidfd_open(process.pid)
    try:
        return not select.select([end], [], [], seconds)[0]
    finally:
        os.close(end)


@contextmanager
def started(*command: str | Path, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], WITHIN_S)[0]
    return process.stdout.readline()


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_turn_with_very_many_sessions_is_no_hang(driver: Path) -> None:
    result = run(driver, "--busy")
    assert (result.returncode, result.stderr) == (0, "")


def test_thread_that_misses_fewer_beats_than_it_may_is_no_hang(driver: Path) -> None:
    result = run(driver, "--slow")
    assert (result.returncode, result.stderr) == (0, "")


def test_thread_that_hangs_is_reported_and_ends_the_process(driver: Path) -> None:
    result = run(driver, "--stall")
    assert result.returncode == -signal.SIGABRT
    assert result.stdout == "idle and alive\n"
    report = result.stderr.splitlines()
    assert "relay thread 0 missed 5 beats" in report[0]
    assert "hangs in session 7 (relaying" in report[1]


def test_thread_that_hangs_while_it_is_stopped_ends_the_process_too(driver: Path) -> None:
    """The stop waits for it: nobody else would end that wait."""
    result = run(driver, "--stopping")
    assert result.returncode == -signal.SIGABRT
    assert "relay thread 0 missed 5 beats" in result.stderr


def test_thread_that_has_ended_is_no_hang(driver: Path) -> None:
    """The stop waits for another one, whose beats go on."""
    result = run(driver, "--ending")
    assert (result.returncode, result.stderr) == (0, "")


# What stderr may be: how to make it (both ends), and whether the report can be read from it.


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fill(lambda: os.write(writing, bytes(4096)))
    os.set_blocking(writing, True)
    return reading, writing


def broken_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.close(reading)
    return os.open(os.devnull, os.O_RDONLY), writing


def socket_pair() -> tuple[int, int]:
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


def full_socket() -> tuple[int, int]:
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    fill(lambda: writing.send(bytes(4096)))
    writing.setblocking(True)
    return reading.detach(), writing.detach()


def fill(write: Callable[[], int]) -> None:
    try:
        while True:
            write()
    except BlockingIOError:
        return


STDERR: dict[str, tuple[Callable[[], tuple[int, int]], bool]] = {
    "a pipe": (os.pipe, True),
    "a full pipe": (full_pipe, False),
    "a pipe nobody reads": (broken_pipe, False),
    "a socket": (socket_pair, True),
    "a full socket": (full_socket, False),
}


@pytest.mark.parametrize(("make", "told"), STDERR.values(), ids=STDERR)
def test_report_waits_for_nobody(driver: Path, make: Callable[[], tuple[int, int]], told: bool) -> None:
    reading, writing = make()
    with ExitStack() as ends:
        ends.callback(os.close, reading)
        with started(driver, "--stall", stderr=writing) as process:
            tell(process)
            ends.callback(os.close, writing)
            assert process.wait(WITHIN_S) == -signal.SIGABRT
        if told:
            assert b"relay thread 0 missed 5 beats" in os.read(reading, 4096)


def test_report_is_added_to_a_file(driver: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("r+") as file, started(driver, "--stall", stderr=file.fileno()) as process:
        tell(process)
        assert process.wait(WITHIN_S) == -signal.SIGABRT
    before, report, *_ = log.read_text().splitlines()
    assert before == "before"
    assert "relay thread 0 missed 5 beats" in report


def test_process_ends_without_a_stderr(driver: Path) -> None:
    with started("sh", "-c", 'exec "$@" 2>&-', "sh", driver, "--stall") as process:
        tell(process)
        assert process.wait(WITHIN_S) == -signal.SIGABRT


def test_process_that_was_stopped_is_not_ended_for_it(driver: Path) -> None:
    """F9: each look after a pause is late itself, and counts nothing; five such would be more misses than there may be"""
    with started(driver, "--stopped") as process:
        assert line_of(process) == b"hangs\n"
        for _ in range(5):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert passes(process, 0.9)
            process.send_signal(signal.SIGCONT)
            assert passes(process, 0.1)
        tell(process)
        assert line_of(process) == b"goes on\n"
        assert process.wait(WITHIN_S) == 0


class Traced:
    """A thread under a debugger that lets it run."""

    SEIZE, INTERRUPT, DETACH, ANY_CHILD = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, thread: int) -> None:
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long
        self._thread = thread
        self._ask(self.SEIZE)

    def _ask(self, request: int) -> None:
        if self._ptrace(request, self._thread, None, None) == -1:
            raise OSError(ctypes.get_errno(), "ptrace")

    def let_go(self) -> None:
        self._ask(self.INTERRUPT)
        os.waitpid(self._thread, self.ANY_CHILD)
        self._ask(self.DETACH)


def thread_of(process: subprocess.Popen[bytes], name: str) -> int:
    (found,) = [
        int(task.name)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        if (task / "comm").read_text() == f"{name}\n"
    ]
    return found


def test_thread_under_a_debugger_is_not_ended_until_it_is_let_go(driver: Path) -> None:
    with started(driver, "--stall") as process:
        assert line_of(process) == b"idle and alive\n"
        try:
            traced = Traced(thread_of(process, "relay"))
        except PermissionError:
            assert not os.environ.get("CI")
            pytest.skip("no process may be traced here")
        tell(process)
        assert passes(process, 1.0)  # 20 looks, where five are enough
        traced.let_go()
        assert process.wait(WITHIN_S) == -signal.SIGABRT
