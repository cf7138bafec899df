"""How many sessions fit."""

from __future__ import annotations

import pytest

from lbproxy.app.limits import max_connections, memory_limit_bytes, reserve_fds
from lbproxy.config.options import Share

GIB = 1024**3


@pytest.mark.parametrize(
    ("configured", "nofile", "memory_bytes", "relay_fds", "expected"),
    [
        (None, 256, 24 * GIB, 0, 96),  # (256 - 64) / 2: three hundred clients are served in turn
        (None, 20_000, 24 * GIB, 0, 9_488),
        (None, 1_048_576, 24 * GIB, 0, 98_304),  # memory is what bounds a large limit of open files
        (None, 20_000, GIB // 4, 0, 1_024),
        (None, 16, 24 * GIB, 0, 1),
        (None, 20_000, 24 * GIB, 517, 9_229),  # two threads with 128 pipes each
        (None, 256, 24 * GIB, 1000, 1),
        (100, 20_000, 24 * GIB, 0, 100),
        (50_000, 20_000, 24 * GIB, 0, 9_488),  # more than the descriptors allow cannot be promised
        (Share(0.5), 20_000, 24 * GIB, 0, 4_744),
        (Share(0.0001), 256, 24 * GIB, 0, 1),
    ],
)
def test_the_limit_follows_descriptors_memory_and_configuration(
    configured: int | Share | None, nofile: int, memory_bytes: int, relay_fds: int, expected: int
) -> None:
    assert max_connections(configured, nofile, memory_bytes, relay_fds) == expected


@pytest.mark.parametrize(("nofile", "reserve"), [(16, 64), (256, 64), (20_000, 1_024), (1_048_576, 1_024)])
def test_the_reserve_grows_with_the_limit_within_bounds(nofile: int, reserve: int) -> None:
    assert reserve_fds(nofile) == reserve


def test_this_machine_has_memory() -> None:
    assert 16 * 1024**2 < memory_limit_bytes() < 1024**5
