"""What every test gets: the event loops, the leak check, the servers of others, hypothesis' profiles."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.leaks", "tests.servers.fixtures"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# A shared machine makes any single example slow by chance, so examples have no deadline of their own: the test has one.
# `derandomize` is off: a new example every run is the point; a failing one is printed and kept in the local database.
settings.register_profile(
    "lbproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("lbproxy")

# libuv opens a pipe of the whole process with its first loop and keeps it: open it now, so that no test is blamed for it.
uvloop.new_event_loop().close()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run a test on asyncio's own loop, and one marked `both_loops` on uvloop, too."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold what a test marked `alone` needs for itself, over all processes of the run. (By a lock: pytest-xdist 3.8 no longer groups tests
    with pytest 9.)"""
    mark = request.node.get_closest_marker("alone")
    if mark is None:
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent
    with (folder / f"{mark.args[0]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
