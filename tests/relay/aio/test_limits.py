"""Which limit of a session comes first."""

from __future__ import annotations

import pytest

from lbproxy.domain.session import EndReason
from lbproxy.relay.aio.limits import Limit, while_connecting, while_relaying
from lbproxy.relay.contract import RelayOptions


def options(connect: int = 0, idle: int = 0, half_close: int = 0, longest: int = 0) -> RelayOptions:
    return RelayOptions(connect, idle, half_close, longest, slot=0)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (options(), None),
        (options(idle=10, half_close=10), None),
        (options(connect=3000), (103.0, EndReason.CONNECT_TIMEOUT)),
        (options(connect=3000, longest=1000), (101.0, EndReason.MAX_DURATION)),
        (options(connect=1000, longest=3000), (101.0, EndReason.CONNECT_TIMEOUT)),
    ],
)
def test_limit_of_a_dial(given: RelayOptions, limit: Limit | None) -> None:
    assert while_connecting(given, 100.0) == limit


@pytest.mark.parametrize(
    ("given", "moved_at", "half_closed_at", "limit"),
    [
        (options(connect=1000), 120.0, None, None),
        (options(half_close=1000), 120.0, None, None),
        (options(idle=5000), 120.0, None, (125.0, EndReason.IDLE_TIMEOUT)),
        (options(idle=5000, longest=10_000), 120.0, None, (110.0, EndReason.MAX_DURATION)),
        (options(idle=5000, half_close=1000), 120.0, 110.0, (121.0, EndReason.HALF_CLOSE_TIMEOUT)),
        (options(idle=5000, half_close=1000), 120.0, 122.0, (123.0, EndReason.HALF_CLOSE_TIMEOUT)),
        (options(idle=500, half_close=1000), 120.0, 110.0, (120.5, EndReason.IDLE_TIMEOUT)),
        (options(half_close=60_000), 120.0, 110.0, (180.0, EndReason.HALF_CLOSE_TIMEOUT)),
    ],
)
def test_limit_of_a_session(
    given: RelayOptions, moved_at: float, half_closed_at: float | None, limit: Limit | None
) -> None:
    assert while_relaying(given, 100.0, moved_at, half_closed_at) == limit
