"""The binding where descriptors or memory run out in the middle of a call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import WITHIN_S

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
print("nothing was refused", flush=True)
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
print("nothing was refused", flush=True)
os._exit(3)
"""

CROWD_WITHOUT_MEMORY = """
import _socket, _testcapi, asyncio
from lbproxy.relay.contract import Dial, RelayOptions
from lbproxy.relay.native.relay import NativeRelay

async def main():
    told = []
    relay = NativeRelay(asyncio.get_running_loop(), told.extend, threads=1)
    options = RelayOptions(0, 0, 0, 0, relay.open_slot(), urgent_inline=True)
    plan = relay.prepare(Dial(socket.AF_INET, listening.getsockname(), (), options))
    refused = 0
    for number in range(1000, 1400):
        (client, *far), (upstream, *off) = [[_socket.socket(fileno=end.detach()) for end in socket.socketpair()] for _ in "12"]
        fd, submitted = client.fileno(), relay.statistics().submitted
        try:
            _testcapi.set_nomemory(number % 8, number % 8 + 1)
            {call}
        except MemoryError:
            _testcapi.remove_mem_hooks()
            refused += 1
            took = relay.statistics().submitted != submitted
            assert took == (client.fileno() == upstream.fileno() == -1), number
        else:
            _testcapi.remove_mem_hooks()
            {taken}
        client.close(), upstream.close()
    submitted = relay.statistics().submitted
    relay.close()
    assert 0 < refused < 400
    assert len([event for event in told if hasattr(event, "reason")]) == submitted

asyncio.run(main())
os._exit(0)
"""

EVENTS_WITHOUT_MEMORY = """
import _socket, _testcapi, asyncio
from lbproxy.domain.session import EndReason, Phase
from lbproxy.relay.contract import RelayOptions
from lbproxy.relay.native.relay import NativeRelay

nobody = socket.socket()
nobody.bind(("127.0.0.1", 0))  # and does not listen
numbers = iter(range(1000, 1_000_000))

def raw(sock):
    sock.setblocking(False)
    return _socket.socket(fileno=sock.detach())

def served(relay, options):
    number, (client, end), (upstream, far) = next(numbers), socket.socketpair(), socket.socketpair()
    far.send(bytes(1000))
    far.close()
    client.shutdown(socket.SHUT_WR)
    relay.submit(number, raw(end), raw(upstream), options)
    return number, client

def refused(relay, options):
    number, (client, end), dial = next(numbers), socket.socketpair(), socket.socket()
    dial.setblocking(False)
    dial.connect_ex(nobody.getsockname())
    fd = end.fileno()
    relay.submit(number, raw(end), raw(dial), options)
    return number, (client, fd)

def attempt(take, first):
    # Whether there was memory for everything, where the allocations from `first` on are refused.
    try:
        _testcapi.set_nomemory(first, {last})
        take()
    except MemoryError:
        _testcapi.remove_mem_hooks()
        return False
    _testcapi.remove_mem_hooks()
    return True

async def lose_nothing(loop, first):
    told, complaints = [], []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    def tell(events):  # has memory
        _testcapi.remove_mem_hooks()
        told.extend(events)
    relay = NativeRelay(loop, tell, threads=1)
    options = RelayOptions(0, 0, 0, 0, relay.open_slot())
    loop.remove_reader(relay._engine.fileno())  # the turns of the loop are ours
    living = served(relay, options)
    del living  # its client goes away
    whole = dict(served(relay, options) for _ in range(2))
    back = dict(refused(relay, options) for _ in range(2))
    relay.flush()
    while relay.statistics().ended < 5:
        await asyncio.sleep(0)
    enough = attempt(relay._take_events, first)
    loop.add_reader(relay._engine.fileno(), relay._take_events)
    {ending}
    relay.close()
    outcomes = {{event.session: event for event in told if hasattr(event, "reason")}}
    assert not complaints, complaints
    assert len(outcomes) == len(told) == 5, (first, told)
    assert not relay._handles
    for number, client in whole.items():
        assert (outcomes[number].received_bytes, outcomes[number].phase) == (1000, Phase.HALF_CLOSED), first
        client.close()
    for number, (client, fd) in back.items():
        assert outcomes[number].reason is EndReason.CONNECT_REFUSED
        assert outcomes[number].client.fileno() == fd, first
        outcomes[number].client.send(b"still here")
        assert client.recv(100) == b"still here"
        client.close()
    return enough

async def main():
    loop, first = asyncio.get_running_loop(), 0
    while not await lose_nothing(loop, first):
        first += 1
    print(first, flush=True)

asyncio.run(main())
os._exit(0)
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


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SETTING + script],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


@pytest.mark.parametrize(
    ("call", "taken"),
    [
        ("relay.launch(number, fd, plan, client_unix=True)", "client.detach()"),
        ("relay.submit(number, client, upstream, options)", "pass"),
    ],
)
def test_relay_without_memory_owns_what_it_has_taken_and_nothing_else(call: str, taken: str) -> None:
    """Each has its Outcome, and nobody else has its descriptors."""
    run(CROWD_WITHOUT_MEMORY.format(call=call, taken=taken))


@pytest.mark.parametrize("allocation", range(6))
def test_clients_that_cannot_be_named_are_hung_up(allocation: int) -> None:
    run(ACCEPT_NO_MEMORY.format(allocation=allocation))


def test_clients_that_there_is_no_descriptor_for_stay_in_the_queue() -> None:
    run(FEW_DESCRIPTORS)


@pytest.mark.parametrize("ending", ["the next turn", "the end"])
@pytest.mark.parametrize("last", ["first + 1", "0"], ids=["one", "all"])
def test_event_that_there_is_no_memory_for_is_told_later(last: str, ending: str) -> None:
    """Every allocation on its way to Python is refused in its turn (alone, and with all after it): nothing is lost, told twice or
    closed. Told later means that the loop is woken once more by itself, or when the relay is closed."""
    waiting = """
    async with asyncio.timeout(10):
        while len(told) < 5:
            await asyncio.sleep(0)
"""
    script = EVENTS_WITHOUT_MEMORY.format(last=last, ending=waiting if ending == "the next turn" else "")
    refused = int(run(script))
    assert refused > 20


# As far as to the names of the reasons, which are all that may be half made: what comes after them is CPython's own work, and its 3.13
# reads a null pointer where a type's dictionary cannot grow.
MODULE_WITHOUT_MEMORY = """
import _testcapi, importlib.util
spec = importlib.util.spec_from_file_location("_engine", _engine.__file__)
refused, named = 0, False
while not named:
    module = importlib.util.module_from_spec(spec)
    run = spec.loader.exec_module
    try:
        _testcapi.set_nomemory(refused, refused + 1)
        run(module)
    except (MemoryError, SystemError):
        refused += 1
    finally:
        _testcapi.remove_mem_hooks()
    named = hasattr(module, "REASONS")
assert module.REASONS == _engine.REASONS
print(refused, flush=True)
os._exit(0)
"""


def test_module_without_memory_is_none() -> None:
    assert int(run(MODULE_WITHOUT_MEMORY)) > 13
