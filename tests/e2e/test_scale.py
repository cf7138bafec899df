"""Conformance E8, H7: many sessions that do nothing, and many that come and go.

Scaled down for every day; the figures of the cases' own words with LBPROXY_CONFORMANCE=full.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import connect, echo, exchange, until, upstreams
from tests.e2e.program import config
from tests.patience import WITHIN_S
from tests.relay.scale import KIB, MIB, scaled

IDLE = scaled(9000, 1000)
IDLE_FOR_S = scaled(20.0, 3.0)
SHORT = scaled(100_000, 3000)
WARM_UP = scaled(5000, 1000)
CLIENTS = 50


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as there may be: both ends of every session live in the test's process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_idle_sessions_cost_next_to_nothing(start: Start, descriptors: None) -> None:
    """E8: under a hundredth of a processor, under 8 KiB of its own memory each (and Python's objects for it)"""
    with ExitStack() as open_:
        listening = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        listening.settimeout(WITHIN_S)
        lb = start(config([listening.getsockname()[1]]))
        before = lb.memory_bytes()
        for _ in range(IDLE):
            open_.enter_context(connect(lb.address()))
            open_.enter_context(listening.accept()[0])
        lb.until(lambda: lb.active() == IDLE)
        each = (lb.memory_bytes() - before) / IDLE
        spent: list[float] = []
        while not spent or min(spent) > IDLE_FOR_S * 0.01:
            assert len(spent) < 5, spent  # the first time may have something left over from the beginning
            used = lb.cpu_s()
            lb.passes(IDLE_FOR_S)
            spent.append(lb.cpu_s() - used)
        assert each < 16 * KIB
        assert len(lb.ended()) == 0


@pytest.mark.timeout(600)
async def test_short_connections_leave_nothing_behind(start: Start) -> None:
    """H7: descriptors, sessions and memory are back to where they were"""
    async with upstreams(echo, echo) as ups:
        lb = start(config([up.port for up in ups], more="log: {access: {enabled: false}}"))

        async def connections(number: int) -> None:
            left = iter(range(number))

            async def client() -> None:
                for _ in left:
                    assert await exchange(lb.address()) == b"x"

            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(client(), name="client")
            await until(lambda: lb.active() == 0 and not any(up.open for up in ups))

        await connections(WARM_UP)
        sockets, memory = lb.sockets(), lb.memory_bytes()
        await connections(SHORT)
        await until(lambda: lb.sockets() <= sockets)
        assert lb.sessions() == []
        assert lb.memory_bytes() - memory < 4 * MIB
        assert lb.total("lbproxy_listener_connections_total") == WARM_UP + SHORT
        assert lb.total("lbproxy_connections_ended_total", reason="client_eof") == WARM_UP + SHORT
        assert [up.accepted for up in ups] == [(WARM_UP + SHORT) // 2] * 2
