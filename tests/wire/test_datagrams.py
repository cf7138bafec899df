"""A question that is cancelled while its socket is being made leaves no socket behind: with one, uvloop would never close."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys

import pytest

from lbproxy.wire.datagrams import BACKEND
from lbproxy.wire.nameservers import NameServers
from lbproxy.wire.records import RecordResolver
from tests.leaks import open_descriptors
from tests.patience import WITHIN_S
from tests.wire.name_server import name_server, silence

# In a process of its own: with a socket left behind it would not come to its end.
CANCELS = """
import asyncio, os, socket, sys, uvloop
from lbproxy.wire.datagrams import BACKEND

async def main():
    loop = asyncio.get_running_loop()
    for turns in range(8):
        before = os.listdir("/proc/self/fd")
        task = loop.create_task(BACKEND.make_socket(socket.AF_INET, socket.SOCK_DGRAM))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await (await task).close()
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if len(os.listdir("/proc/self/fd")) > len(before):
            os._exit(turns + 1)

with asyncio.Runner(loop_factory=getattr(__import__(sys.argv[1]), "new_event_loop")) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cancelled_at_any_point_it_leaves_no_socket(loop: str) -> None:
    done = subprocess.run([sys.executable, "-c", CANCELS, loop], timeout=WITHIN_S, check=False)
    assert done.returncode == 0


@pytest.mark.both_loops
@pytest.mark.parametrize("turns", range(12))
async def test_question_that_is_cancelled_at_any_point_leaves_nothing(turns: int) -> None:
    async with name_server() as server:
        server.both("web.example", silence)
        resolver = RecordResolver(NameServers((server.address,)), WITHIN_S)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(resolver.addresses("web.example.", ("A", "AAAA")), name="resolve")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()


@pytest.mark.both_loops
async def test_socket_that_cannot_be_had_is_the_systems_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as open_:
        highest = max(open_descriptors())
        while (filler := open_.enter_context(socket.socket())).fileno() < highest:
            continue
        resource.setrlimit(resource.RLIMIT_NOFILE, (filler.fileno() + 1, before[1]))
        open_.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with pytest.raises(OSError, match="Too many open files"):
            await BACKEND.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
