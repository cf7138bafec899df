"""The leak check itself: what a test leaves behind fails that test, and what it cleans up does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.patience import WITHIN_S

pytest_plugins = ["pytester"]

LEAKY = """
import asyncio
import os
import socket
import threading

import pytest

kept = []


def test_open_descriptor():
    os.dup(0)

def test_open_socket():
    socket.socket().detach()

def test_forgotten_socket():
    cycle = [socket.socket()]
    cycle.append(cycle)

def test_thread():
    threading.Thread(target=threading.Event().wait, daemon=True, name="stays").start()

@pytest.mark.both_loops
async def test_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)

@pytest.mark.both_loops
async def test_task():
    asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="stays")

async def test_server():
    kept.append(await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0))

def test_registered_check(leaks):
    leaks.add(lambda: ["one session too many"])

async def test_registered_check_on_the_loop(leaks):
    leaks.add(lambda: ["one session too many"])
"""

CLEAN = """
import asyncio
import os
import threading

import hypothesis
import pytest
from hypothesis import strategies


@pytest.fixture
async def echo():
    async def answer(reader, writer):
        writer.write(await reader.read())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()

@pytest.mark.both_loops
async def test_connection_that_is_closing(echo):
    reader, writer = await asyncio.open_connection(*echo)
    writer.write(b"x")
    writer.write_eof()
    assert await reader.read() == b"x"
    writer.close()

@pytest.mark.both_loops
async def test_executor():
    assert await asyncio.get_running_loop().run_in_executor(None, lambda: 1) == 1

@pytest.mark.both_loops
async def test_subprocess():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0

async def test_task_that_is_ending():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0), name="short")

def test_thread_that_is_ending():
    gate = threading.Event()
    threading.Thread(target=gate.wait).start()
    gate.set()

def test_registered_check(leaks):
    leaks.add(lambda: [])

@hypothesis.given(strategies.integers())
def test_hypothesis(number):
    assert number == number
"""

CONFTEST = """
from tests.conftest import *


def pytest_configure():
    import tests.leaks

    tests.leaks.SETTLE_WITHIN_S = %s
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project with this one's settings, whose tests run in a process of their own."""
    pytester.makefile(".toml", pyproject=(pytestconfig.rootpath / "pyproject.toml").read_text())
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    return pytester


def run(project: pytest.Pytester, source: str, settle_within_s: float) -> pytest.RunResult:
    project.makeconftest(CONFTEST % settle_within_s)
    Path(project.path, "test_inner.py").write_text(source)
    return project.runpytest_subprocess("-p", "no:cacheprovider", "test_inner.py")


def test_what_a_test_leaves_behind_fails_it(project: pytest.Pytester) -> None:
    result = run(project, LEAKY, 0.05)  # what is left behind here stays: no use in waiting for it
    result.stdout.fnmatch_lines_random(
        [
            "*open descriptor *",
            "*open descriptor *: socket:*",
            "*running thread stays*",
            "*unfinished task stays*",
            "*unhandled: *ZeroDivisionError*",
            "*one session too many*",
        ]
    )
    for name in ("test_open_descriptor", "test_open_socket", "test_forgotten_socket", "test_thread"):
        result.stdout.fnmatch_lines_random([f"ERROR *::{name}*"])
    for name in ("test_callback", "test_task"):
        for loop in ("asyncio", "uvloop"):
            result.stdout.fnmatch_lines_random([f"ERROR *::{name}[[]{loop}]*"])
    for name in ("test_server", "test_registered_check", "test_registered_check_on_the_loop"):
        result.stdout.fnmatch_lines_random([f"ERROR *::{name} *"])


def test_what_is_closed_in_the_end_passes(project: pytest.Pytester) -> None:
    run(project, CLEAN, WITHIN_S).assert_outcomes(passed=10)
