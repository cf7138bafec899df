"""The binding where descriptors or memory run out in the middle of a call."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A number above 256 is memory of its own.
SETTING = """
import os, resource, socket, struct, sys
from lbproxy.relay.native import _engine

engine = _engine.Engine(1, 1)
slot = engine.open_slot()
listening = socket.create_server(("127.0.0.1", 0), backlog=100)
listening.setblocking(False)
port = listening.getsockname()[1]
address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton("127.0.0.1") + bytes(8)
plan = engine.prepare(socket.AF_INET, port, address, b"", *[0] * 4, slot, *[0] * 3)
limits = (*[0] * 4, slot, *[0] * 3)

def descriptors():
    return len(os.listdir("/proc/self/fd"))
"""

NO_MEMORY = """
import _testcapi

pairs = [socket.socketpair() for _ in range(602)]
one, other = [pair[0].fileno() for pair in pairs], [pair[1].fileno() for pair in pairs]

def call(number):
    {call}

for number in range(300):
    call(number)
submitted, before, number = engine.submitted(), descriptors(), 300
try:
    _testcapi.set_nomemory({allocation}, {allocation} + 1)
    call(number)
except MemoryError:
    _testcapi.remove_mem_hooks()
    assert engine.submitted() == submitted
    assert descriptors() == before
    os._exit(0)
_testcapi.remove_mem_hooks()
print("nothing was refused")
os._exit(3)
"""

ACCEPT_NO_MEMORY = """
import _testcapi

clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
before = descriptors()
try:
    _testcapi.set_nomemory({allocation}, {allocation} + 1)
    engine.accept(listening.fileno(), 10)
except MemoryError:
    _testcapi.remove_mem_hooks()
    assert descriptors() == before
    assert [client.recv(1) for client in clients] == [b""] * 3
    os._exit(0)
_testcapi.remove_mem_hooks()
print("nothing was refused")
os._exit(3)
"""

FEW_DESCRIPTORS = """
clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
before = descriptors()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (clients[-1].fileno() + 1 + 2, hard))
arrivals = engine.accept(listening.fileno(), 10)
assert [port for _, _, port, _ in arrivals] == [client.getsockname()[1] for client in clients[:2]]
for refused in (lambda: engine.accept(listening.fileno(), 10), lambda: engine.launch(1, clients[0].fileno(), 0, plan)):
    try:
        refused()
    except OSError as error:
        assert error.errno == 24, error
    else:
        raise AssertionError("there was a descriptor")
assert engine.submitted() == 0
for fd, *_ in arrivals:
    os.close(fd)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert descriptors() == before
assert len(engine.accept(listening.fileno(), 10)) == 3
os._exit(0)
"""


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETTING + script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "engine.launch(number, one[number], 1, plan)",
        "engine.submit(number, one[number], other[number], 1, 1, 1, b'', *limits)",
    ],
)
def test_call_that_gets_no_memory_has_taken_nothing_over(call: str) -> None:
    """Else both sides would close the client, and the second of them somebody else's."""
    run(NO_MEMORY.format(call=call, allocation=0))


@pytest.mark.parametrize("allocation", range(6))
def test_clients_that_cannot_be_named_are_hung_up(allocation: int) -> None:
    run(ACCEPT_NO_MEMORY.format(allocation=allocation))


def test_clients_that_there_is_no_descriptor_for_stay_in_the_queue() -> None:
    run(FEW_DESCRIPTORS)
