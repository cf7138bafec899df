"""What every test gets: the event loops, the leak check, the servers of others, hypothesis' profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

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
