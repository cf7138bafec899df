"""Every test leaves the process as it found it: no file descriptor, task or thread of its own stays behind.

An exception that reached the event loop's handler unhandled fails the test as well.

The check runs by itself after each test. A module adds checks of its own through the `leaks` fixture:

    @pytest.fixture(autouse=True)
    def every_session_ended(leaks, statistics):
        leaks.add(lambda: [] if statistics.opened == statistics.closed else [f"{statistics} do not balance"])

What a module- or session-scoped fixture opens is counted as there before, if the test asks for the fixture by its name.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pytest_asyncio import is_async_test

# How long something that is on its way out may take: a transport's connection_lost, a thread's end.
SETTLE_WITHIN_S = 20.0
LOOP_TURNS = 20

Check = Callable[[], list[str]]
"""Says what is left behind, a line each; an empty list means nothing."""


class Leaks:
    """What one test has to answer for, beside descriptors, tasks and threads."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def add(self, check: Check) -> None:
        """Run `check` when the test and its fixtures have ended (for an asynchronous test: still on its loop)."""
        self._checks.append(check)

    def found(self) -> list[str]:
        return [line for check in self._checks for line in check()]


def open_descriptors() -> dict[int, str]:
    """What every open descriptor of this process refers to: descriptor -> `socket:[123]`, a path, ..."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the folder's own descriptor, closed by now
    return found


def new_descriptors(before: dict[int, str]) -> list[str]:
    """The descriptors that are open now and were not, or that refer to something else than before."""
    return [
        f"open descriptor {number}: {target}"
        for number, target in sorted(open_descriptors().items())
        if before.get(number) != target
    ]


def new_kinds_of_descriptors(before: dict[int, str]) -> list[str]:
    """The same while an event loop lives, which has descriptors of its own.

    uvloop makes a new pair of sockets whenever it starts to run, and keeps /dev/null open once it has listened. So what
    counts is how many there are of a kind, and the loop's spare is left to the check that follows the loop's end.
    """

    def kind(target: str) -> str:
        return target.partition(":")[0]

    room = Counter(map(kind, before.values()))
    now = Counter(map(kind, open_descriptors().values()))
    more = {name for name in now if now[name] > room[name] and name != os.devnull}
    return [line for line in new_descriptors(before) if kind(line.partition(": ")[2]) in more]


def new_threads(before: set[threading.Thread]) -> list[str]:
    """Threads that were not there before and do not end."""
    deadline = time.monotonic() + SETTLE_WITHIN_S
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [f"running thread {thread.name}" for thread in left if thread.is_alive()]


def tasks_left() -> list[str]:
    """The running loop's unfinished tasks, without the one that asks."""
    return sorted(
        f"unfinished task {task.get_name()}: {task.get_coro()}"
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task()
    )


def _fail(left: list[str]) -> None:
    pytest.fail("left behind by this test:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
async def _nothing_left_on_the_loop(leaks: Leaks) -> AsyncIterator[None]:
    """Look while the loop still lives: closing it would cancel the tasks and close the transports that were forgotten."""
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []

    def record(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unhandled.append(f"unhandled: {context.get('message')}: {context.get('exception')!r}")
        loop.default_exception_handler(context)

    loop.set_exception_handler(record)
    await asyncio.sleep(0)
    before = open_descriptors()
    yield

    def left() -> list[str]:
        return [*tasks_left(), *new_kinds_of_descriptors(before), *leaks.found()]

    deadline = time.monotonic() + SETTLE_WITHIN_S
    turns = 0
    while left() and (turns < LOOP_TURNS or time.monotonic() < deadline):
        turns += 1
        await asyncio.sleep(0)
    still = left()
    if still:
        gc.collect()  # a forgotten object warns as it goes, and the warning says more
    if still or unhandled:
        _fail([*still, *unhandled])


@pytest.fixture
def leaks() -> Leaks:
    """Where a test or a module registers checks of its own."""
    return Leaks()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, leaks: Leaks) -> Iterator[None]:
    threads = set(threading.enumerate())
    before = open_descriptors()
    yield
    running = new_threads(threads)  # first, as one that ends may close something
    left = new_descriptors(before)
    if left:
        gc.collect()
        left = new_descriptors(before)
    if not is_async_test(request.node):
        left += leaks.found()
    left += running
    if left:
        _fail(left)


@pytest.fixture(autouse=True)
def _nothing_left_on_any_loop(request: pytest.FixtureRequest, _nothing_left: None) -> None:
    # Asked for here, and not by every test: a synchronous test gets no event loop.
    if is_async_test(request.node):
        request.getfixturevalue("_nothing_left_on_the_loop")
