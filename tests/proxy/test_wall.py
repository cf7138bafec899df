"""The wall: a defect in one session ends that session, keeps nothing of it, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import NoReturn

import pytest

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.contract import Outcome
from tests.patience import WITHIN_S
from tests.proxy.rig import (
    LINGER_RESET,
    address_of,
    peers,
    receive,
    receive_all,
    running,
    unanswering,
)

pytestmark = pytest.mark.both_loops


class _DefectError(Exception):
    pass


def defect(*_: object) -> NoReturn:
    raise _DefectError


async def test_a_defect_in_one_session_ends_that_session_alone(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        acquire, rig.pool.acquire = rig.pool.acquire, None  # type: ignore[method-assign,assignment]
        with rig.connect() as client, pytest.raises(ConnectionResetError):
            await receive_all(loop, client)
        rig.pool.acquire = acquire  # type: ignore[method-assign]
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"a"
        first, second = await rig.until_ended(2)
        assert (first.reason, second.reason) == (EndReason.INTERNAL_ERROR, EndReason.CLIENT_EOF)
        assert "session 1 failed" in caplog.text


async def test_a_defect_once_connected_keeps_nothing_of_a_session_that_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A relay may tell of a short session in one event: that it was connected, and that it has ended."""
    with unanswering() as hole:
        async with running() as rig:
            rig.start([hole])
            rig.pool.connected = defect  # type: ignore[method-assign,assignment]
            with rig.connect():
                rig.listener.close()  # whoever waits at the door is let in first
                told = Outcome(1, EndReason.CLIENT_EOF, Phase.HALF_CLOSED, 5, 6, 0.1, 0.1, 0.2, 0, None)
                rig.dialer.on_events([told])
                [ended] = rig.ended
                assert (ended.reason, ended.sent_bytes) == (EndReason.INTERNAL_ERROR, 5)
                assert (len(rig.dialer.sessions), rig.listener.active, rig.capacity.active) == (0, 0, 0)
                assert rig.pool.endpoints()[0].active == 0
    assert "session 1 failed at its end" in caplog.text


async def test_a_defect_once_connected_ends_a_live_session(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        rig.pool.connected = defect  # type: ignore[method-assign,assignment]
        with rig.connect() as client, pytest.raises(ConnectionResetError):
            await receive_all(loop, client)
        [ended] = await rig.until_ended(1)
        assert ended.reason is EndReason.INTERNAL_ERROR
        assert "session 1 failed once connected" in caplog.text


async def test_a_defect_when_a_lease_is_given_back_keeps_no_place(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        release = rig.pool._give_back

        def badly(endpoint: Endpoint) -> NoReturn:
            release(endpoint)
            raise _DefectError

        rig.pool._give_back = badly
        with rig.connect() as client:
            client.shutdown(socket.SHUT_WR)
            assert await receive_all(loop, client) == b"a"
        async with asyncio.timeout(WITHIN_S):
            await rig.dialer.sessions.wait_empty()
        assert (rig.listener.active, rig.capacity.active) == (0, 0)
        assert "_DefectError" in caplog.text


@pytest.mark.parametrize("also_at_the_choice", [False, True])
async def test_who_came_along_with_a_defect_is_served(
    also_at_the_choice: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Many clients may be accepted at once. The first of these meets the defect: when its end is told, and (then its end is met
    by another) when an endpoint is chosen for it."""
    loop = asyncio.get_running_loop()
    async with peers(b"a") as up, running() as rig:
        rig.start([address_of(up[b"a"].listening)])
        log, acquire = rig.dialer.log, rig.pool.acquire

        def once(*_: object) -> NoReturn:
            rig.dialer.log = log
            raise _DefectError

        def acquire_once(*_: object) -> NoReturn:
            rig.pool.acquire = acquire  # type: ignore[method-assign]
            raise _DefectError

        rig.dialer.log = once  # type: ignore[assignment]
        if also_at_the_choice:
            rig.pool.acquire = acquire_once  # type: ignore[method-assign,assignment]
        with ExitStack() as clients:
            first, *others = [clients.enter_context(rig.connect()) for _ in range(5)]
            if not also_at_the_choice:
                first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                first.close()
            for client in others:
                assert await receive(loop, client, 1) == b"a"
        await rig.until_ended(4)
        assert "_DefectError" in caplog.text
