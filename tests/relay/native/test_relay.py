"""What only the relay with threads has: its extension, its threads, its pipes, and a loop that may stand still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lbproxy.domain.session import EndReason
from lbproxy.relay.native import _engine
from lbproxy.relay.native.relay import NativeRelay, available, descriptors
from lbproxy.relay.options import MAX_THREADS
from tests.leaks import open_descriptors
from tests.patience import WITHIN_S
from tests.relay.peers import pattern, segments_received
from tests.relay.rig import Rig, bare, rig_for
from tests.relay.scale import MIB

pytestmark = pytest.mark.skipif(available() is not None and not os.environ.get("CI"), reason=str(available()))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_for(lambda loop, on_events: NativeRelay(loop, on_events, threads=1), tmp_path) as rig:
        yield rig


def relay_of(rig: Rig) -> NativeRelay:
    assert isinstance(rig.relay, NativeRelay)
    return rig.relay


def test_extension_is_there_where_everything_must_be() -> None:
    assert available() is None


async def test_sessions_are_spread_over_the_threads(tmp_path: Path) -> None:
    async with rig_for(lambda loop, on_events: NativeRelay(loop, on_events, threads=3), tmp_path) as rig:
        sessions = [rig.open() for _ in range(6)]
        for session in sessions:
            await rig.connected(session)
        assert [thread["connected"] for thread in relay_of(rig).thread_statistics()] == [2, 2, 2]


async def test_more_cpus_than_an_engine_takes_threads_get_as_many_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    assert MAX_THREADS == _engine.MAX_THREADS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(128))
    relay = NativeRelay(loop, lambda _: None)
    assert len(relay.thread_statistics()) == MAX_THREADS
    relay.close()
    with pytest.raises(OSError, match="Invalid argument"):
        NativeRelay(loop, lambda _: None, threads=MAX_THREADS + 1)


@pytest.mark.parametrize(
    ("nofile", "threads", "pipes"), [(256, 1, 4), (256, 8, 1), (1024, 3, 5), (20_000, 2, 128)]
)
async def test_relay_says_how_many_descriptors_it_may_take(
    monkeypatch: pytest.MonkeyPatch, nofile: int, threads: int, pipes: int
) -> None:
    made: list[tuple[int, int]] = []

    def engine(threads: int, pipes: int, **options: int) -> _engine.Engine:
        made.append((threads, pipes))
        return real(threads, pipes, **options)

    real = _engine.Engine
    monkeypatch.setattr(_engine, "Engine", engine)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (nofile, nofile))
    before = len(open_descriptors())
    relay = NativeRelay(asyncio.get_running_loop(), lambda _: None, threads=threads)
    own = len(open_descriptors()) - before
    relay.close()
    assert made == [(threads, pipes)]
    assert descriptors(threads) == own + 2 * threads * pipes


async def test_bulk_is_spliced_and_chatter_is_copied(rig: Rig) -> None:
    session = rig.open()
    data = pattern(8 * MIB)
    async with asyncio.TaskGroup() as group:
        group.create_task(session.client.send(data), name="sending")
        received = group.create_task(session.upstream.receive_exactly(len(data)), name="receiving")
    assert received.result() == data
    spliced = 0
    for _ in range(2):  # behind the first, the thread has counted what it did before
        (thread,) = relay_of(rig).thread_statistics()
        spliced = thread["spliced"]
        await session.upstream.send(b"small")
        assert await session.client.receive_exactly(5)
    assert spliced > 0
    (thread,) = relay_of(rig).thread_statistics()
    assert thread["spliced"] == spliced
    assert thread["pipes_busy"] == 0


async def test_reader_that_stalls_after_much_leaves_one_pipe_full(rig: Rig) -> None:
    """E3: once he has taken 8 MiB, up to 1 MiB is read for him at a time, and never more."""
    session = rig.open()
    data = pattern(64 * MIB)
    async with asyncio.TaskGroup() as group:
        group.create_task(session.client.send(data[: 16 * MIB]), name="sending")
        received = group.create_task(session.upstream.receive_exactly(16 * MIB), name="receiving")
    taken = 16 * MIB + await session.client.fill(data[16 * MIB :])
    assert 0 < rig.relay.statistics().pending_bytes <= MIB
    async with asyncio.TaskGroup() as group:
        rest = group.create_task(session.upstream.receive_exactly(len(data) - 16 * MIB), name="reading")
        await session.client.send(data[taken:])
    assert received.result() + rest.result() == data
    await rig.until(lambda: rig.relay.statistics().pending_bytes == 0)


async def test_bulk_is_copied_when_no_pipe_can_be_had(rig: Rig) -> None:
    """G5"""
    session = rig.open()
    await rig.connected(session)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(open_descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    data = pattern(8 * MIB)
    with contextlib.ExitStack() as fillers:
        fillers.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with contextlib.suppress(OSError):  # until nothing more can be opened
            while True:
                fillers.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        async with asyncio.TaskGroup() as group:
            group.create_task(session.client.send(data), name="sending")
            received = group.create_task(session.upstream.receive_exactly(len(data)), name="receiving")
    assert received.result() == data
    (thread,) = relay_of(rig).thread_statistics()
    assert thread["pipes_refused"] > 0
    assert thread["spliced"] == 0


async def test_last_bytes_and_the_end_are_one_segment(rig: Rig) -> None:
    """Where the kernel has reported the end with them."""
    client, client_end = rig.client()
    listener = rig.listener()
    upstream_end = listener.dial()
    upstream = rig.keep(listener.accept())
    await upstream.send(b"answer")
    upstream.fin()
    before = segments_received(client.sock)
    session = rig.submit(client_end, bare(upstream_end))
    assert await client.receive_all() == b"answer"
    assert segments_received(client.sock) == before + 1
    client.fin()
    await rig.ended(session, EndReason.UPSTREAM_EOF)


async def test_bytes_move_while_the_loop_stands_still(rig: Rig) -> None:
    """K10: the loop is blocked, and the peers are plain blocking sockets"""
    session = rig.open()
    await rig.connected(session)
    for peer in (session.client, session.upstream):
        peer.sock.settimeout(WITHIN_S)
    for _ in range(200):
        session.client.sock.sendall(b"ping")
        assert session.upstream.sock.recv(4, socket.MSG_WAITALL) == b"ping"
    for peer in (session.client, session.upstream):
        peer.sock.setblocking(False)


async def test_connected_comes_soon_without_other_events(rig: Rig) -> None:
    """It waits a few milliseconds for company, not for ever."""
    session = rig.open()
    started = rig.loop.time()
    await rig.connected(session)
    assert rig.loop.time() - started < 10


async def test_submit_that_there_is_no_memory_to_follow_up_wakes_the_threads_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would wake one that sleeps, neither for this session nor for a later one."""

    def refuse(*_: object) -> None:
        raise MemoryError

    for _ in range(2):
        listener = rig.listener()
        _, client_end = rig.client()
        with monkeypatch.context() as patch:
            patch.setattr(relay_of(rig), "_loop", SimpleNamespace(call_soon=refuse))
            number = rig.submit(client_end, bare(listener.dial()))
        await rig.connected(number)


async def test_abort_that_said_true_decides_the_reason(rig: Rig) -> None:
    """Sessions end by themselves in a thread at the same moment."""
    for number in range(200):
        session = rig.open()
        session.client.close()
        session.upstream.close()
        if number % 2:
            await asyncio.sleep(0)
        aborted = rig.relay.abort(session.number, EndReason.DRAINED, reset=False)
        outcome = await rig.outcome(session)
        assert (outcome.reason is EndReason.DRAINED) is aborted


FORKED = """
import asyncio, os
from lbproxy.relay.native.relay import NativeRelay

loop = asyncio.new_event_loop()
relay = NativeRelay(loop, lambda _: None, threads=2)
pid = os.fork()
if pid == 0:
    relay._engine.stop()
    del relay._engine, relay._submit, relay._launch
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
relay.close()
"""


def test_forked_child_lets_go_of_the_engine() -> None:
    """The threads are not there in the child: to wait for them would be for ever."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=WITHIN_S)


STOPPED = """
import asyncio, os, signal, socket, sys, _socket
from lbproxy.relay.contract import RelayOptions
from lbproxy.relay.native.relay import NativeRelay

async def main():
    loop = asyncio.get_running_loop()
    events = []
    relay = NativeRelay(loop, events.extend, threads=1)
    client, upstream = socket.socketpair(), socket.socketpair()
    for sock in (*client, *upstream):
        sock.setblocking(False)
    relay.submit(1, _socket.socket(fileno=client[1].detach()), _socket.socket(fileno=upstream[0].detach()),
                 RelayOptions(0, 60_000, 0, 0, relay.open_slot()))
    client[0].send(b"x")
    await loop.sock_recv(upstream[1], 1)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    client[0].send(b"y")
    print((await loop.sock_recv(upstream[1], 1)).decode(), flush=True)
    relay.close()

asyncio.run(main())
"""


def test_stopped_process_goes_on_where_it_was() -> None:
    """F9: the watchdog counts what it sees, so a pause of the whole process misses no beats."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("go\n", timeout=WITHIN_S)
        assert out == "y\n"
        assert process.returncode == 0
