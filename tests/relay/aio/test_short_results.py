"""Conformance A6: system calls that give less than they could, or fail in ways that loopback never shows.

The contract's socket type is subclassed. A short read is injected only on unix legs: on TCP the relay rightly takes a short
read for an empty queue, because the kernel gives one in no other case but those it announces.
"""

from __future__ import annotations

import _socket
import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lbproxy.domain.session import EndReason
from lbproxy.relay.aio.relay import AsyncioRelay
from tests.relay.peers import pattern
from tests.relay.rig import LEGS, TCP, Legs, Rig, Session, bare, rig_for
from tests.relay.scale import MIB, scaled

pytestmark = pytest.mark.both_loops


class Grudging(_socket.socket):
    """Takes and gives a random part of what it could; every seventh time a single byte."""

    chance = random.Random(6)
    short_reads = False

    def send(self, data: Any, flags: int = 0, /) -> int:
        return super().send(data[: self.part(len(data))], flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        size = nbytes or len(buffer)
        return super().recv_into(buffer, self.part(size) if self.short_reads else size, flags)

    def part(self, size: int) -> int:
        return 1 if self.chance.randrange(7) == 0 else self.chance.randint(1, size)


class GrudgingReader(Grudging):
    short_reads = True


class Failing(_socket.socket):
    """Fails to send with this errno once so many calls have gone well."""

    error = errno.ENOBUFS
    after = 3

    def send(self, data: Any, flags: int = 0, /) -> int:
        if self.after == 0:
            raise OSError(self.error, "injected")
        self.after -= 1
        return super().send(data, flags)


class Broken(_socket.socket):
    """Not a failure of the system, but a fault in the program."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        raise ZeroDivisionError("a fault")


class Vanished(_socket.socket):
    """Its number is nobody's."""

    def fileno(self) -> int:
        return 1_000_000


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_for(AsyncioRelay, tmp_path) as rig:
        yield rig


def open_with(rig: Rig, kind: type[_socket.socket], legs: Legs) -> Session:
    """A session whose two sockets are of this type."""
    client, client_end = rig.client(legs[0])
    listener = rig.listener(legs[1])
    upstream_end = listener.dial()
    upstream = rig.keep(listener.accept())
    number = rig.submit(kind(fileno=client_end.detach()), kind(fileno=upstream_end.detach()))
    return Session(number, client, upstream, rig.slot)


@pytest.mark.parametrize(
    ("legs", "kind"), [(TCP, Grudging), (LEGS["unix"], GrudgingReader)], ids=["tcp", "unix"]
)
async def test_short_results_lose_and_reorder_nothing(rig: Rig, legs: Legs, kind: type[Grudging]) -> None:
    """A6, on A3: scaled from 64 MiB to 2 MiB each way"""
    session = open_with(rig, kind, legs)
    up, down = (pattern(scaled(64 * MIB, 2 * MIB), seed) for seed in (1, 2))
    async with asyncio.TaskGroup() as group:
        reading = [
            group.create_task(peer.receive_all(), name="reading")
            for peer in (session.upstream, session.client)
        ]
        group.create_task(session.client.send(up), name="client sends")
        await session.upstream.send(down)
        session.upstream.fin()
        await rig.until(lambda: rig.view(session).sent_bytes == len(up))
        session.client.fin()
    assert [task.result() for task in reading] == [up, down]


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT])
async def test_write_that_fails_ends_the_session_with_its_errno(
    rig: Rig, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    session = open_with(rig, Failing, TCP)
    for number in range(1, 5):
        await session.client.send(b"x")
        await rig.until(lambda: not rig.relay.sessions() or rig.view(session).sent_bytes == number)  # noqa: B023
    outcome = await rig.ended(session, EndReason.UPSTREAM_RESET)
    assert (outcome.errno, outcome.sent_bytes) == (error, 3)
    await session.client.receive_until_reset()


async def test_socket_that_cannot_be_watched_leaves_both_with_the_caller(rig: Rig) -> None:
    client, client_end = rig.client()
    vanished = Vanished()
    with pytest.raises(OSError, match="descriptor"):
        rig.submit(client_end, vanished)
    vanished.close()
    await client.send(b"still here")
    assert client_end.recv(100) == b"still here"
    listener = rig.listener()
    number = rig.submit(client_end, bare(listener.dial()))  # so it is watched no longer
    rig.keep(listener.accept())
    await rig.connected(number)


async def test_fault_in_one_session_ends_that_one_alone(rig: Rig) -> None:
    reported: list[object] = []
    rig.loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    healthy = rig.open()
    session = open_with(rig, Broken, TCP)
    await session.client.send(b"x")
    await healthy.client.send(b"fine")
    await rig.ended(session, EndReason.INTERNAL_ERROR)
    assert await healthy.upstream.receive_exactly(4) == b"fine"
    assert [type(error) for error in reported] == [ZeroDivisionError]
    await session.client.receive_until_reset()


async def test_sockets_keep_urgent_bytes_in_line(rig: Rig) -> None:
    """G1: set on both legs before anything is read"""
    client, client_end = rig.client()
    listener = rig.listener()
    upstream_end = listener.dial()
    upstream = rig.keep(listener.accept())
    ends = [client_end, _socket.socket(fileno=upstream_end.detach())]
    rig.submit(*ends)
    assert all(end.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) for end in ends)
    client.close()
    upstream.close()
