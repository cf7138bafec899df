"""Conformance D8, E4, G4, G5, H2: descriptors, pipes or readers are missing. What cannot be served is refused; the rest goes on."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.program import Program, config, program
from tests.relay.scale import KIB, MIB, scaled
from tests.servers.programs import require
from tests.soak.conftest import Begin, Start
from tests.soak.test_bytes import QUIET, at_rest

PIPE_PAUSE_S = 1.1  # after a refused pipe the relay asks for none for a second (pipes.c)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Figure = Callable[..., None]
HERE = Path(__file__).resolve().parent


def limit_files(lb: Program, most: int | None) -> None:
    """Leave the program only so many descriptors (None: as many as this process may have)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (most or hard, hard))


def test_program_out_of_descriptors_comes_back(start: Start, load: Begin, figure: Figure) -> None:
    """D8: EMFILE from accept, socket and pipe, again and again under load; none of it is the endpoint's fault"""
    rounds, number = scaled(20, 3), scaled(500, 100)
    upstream = load("upstream-echo")
    lb = start(config([upstream.port]))
    load("client-short", port=lb.address()[1], number=100).done()
    at_rest(lb, sockets := lb.sockets())
    open_now = max(int(name) for name in os.listdir(f"/proc/{lb.pid}/fd"))
    served = 0
    for turn in range(rounds):
        clients = load("client-short", port=lb.address()[1], number=number, at_once=40)
        limit_files(lb, open_now + 1 + turn % 8)
        used, began = lb.cpu_s(), time.monotonic()
        lb.passes(0.3)
        spent, took = lb.cpu_s() - used, time.monotonic() - began
        assert spent < 0.8 * took, f"{spent} s of {took} s with nothing to do"
        limit_files(lb, None)
        counts = clients.done()
        assert counts.get("served", 0) + counts.get("refused", 0) == number
        served += counts.get("served", 0)
    at_rest(lb, sockets)
    counts = load("client-short", port=lb.address()[1], number=200).done()
    assert counts == {"served": 200}
    reasons = {line["reason"] for line in lb.ended()}
    assert reasons <= {"client_eof", "upstream_eof", "client_reset", "local_fds", "client_gone"}, reasons
    assert lb.endpoints()[upstream.port]["connect_failures"].keys() <= {"local"}
    figure(rounds=rounds, served=served, refused=rounds * number - served)


@contextmanager
def refusing(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[int, int], None]]]:
    """The environment in which the program's relay threads are refused calls, and how to tell which (see refuse.c)."""
    library, orders = folder / "refuse.so", folder / "orders"
    compiler = require("cc")
    command: list[str | Path] = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "refuse.c"]
    subprocess.run(command, check=True, timeout=280)
    orders.write_bytes(bytes(4096))
    with orders.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as shared:

        def order(what: int, one_in: int) -> None:
            shared[1], shared[0] = one_in, what

        yield {"LD_PRELOAD": str(library), "LBPROXY_REFUSE": str(orders)}, order


def test_relay_that_gets_no_pipes_copies(start: Start, load: Begin, figure: Figure, tmp_path: Path) -> None:
    """G5: every pipe is refused, then every other one, then none"""
    number, size = scaled(200, 20), scaled(8 * MIB, 4 * MIB)
    upstream = load("upstream-streams", bytes=size)
    with refusing(tmp_path) as (environ, order):
        lb = start(config([upstream.port], more=QUIET), environ=environ)
        sockets, others = lb.sockets(), pipes(lb).keys()
        for what, one_in in ((1, 1), (1, 2), (0, 1)):
            order(what, one_in)
            if what == 0:
                lb.passes(PIPE_PAUSE_S)
            load("client-streams", port=lb.address()[1], number=number, at_once=20, bytes=size).done()
            assert one_in == 2 or bool(pipes(lb).keys() - others) is (what == 0)
        at_rest(lb, sockets)
    assert upstream.done()["checked_bytes"] == 3 * number * size
    figure(connections=3 * number, checked_bytes=6 * number * size)


def test_sessions_that_cannot_be_watched_are_refused_and_the_others_served(
    start: Start, load: Begin, figure: Figure, tmp_path: Path
) -> None:
    number = scaled(10_000, 600)
    upstream = load("upstream-echo")
    with refusing(tmp_path) as (environ, order):
        lb = start(config([upstream.port], upstream="connect: {attempts: 1}"), environ=environ)
        load("client-short", port=lb.address()[1], number=50).done()
        at_rest(lb, sockets := lb.sockets())
        order(2, 7)
        counts = load("client-short", port=lb.address()[1], number=number).done()
        order(0, 1)
        at_rest(lb, sockets)
        assert counts["served"] > number // 2
        assert counts["served"] + counts["refused"] == number
        lb.until(lambda: len(lb.ended()) == number + 50)
        reasons = Counter(line["reason"] for line in lb.ended())
        assert reasons["local_fds"] == counts["refused"] > 0, reasons
        assert lb.endpoints()[upstream.port]["eligible"]
    figure(**counts)


HOLDER = """
import fcntl, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
pipes = [os.pipe() for _ in range(int(sys.argv[1]))]
print(fcntl.fcntl(pipes[-1][0], fcntl.F_GETPIPE_SZ), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_unprivileged_user_with_very_many_pipes_loses_no_byte(load: Begin, figure: Figure) -> None:
    """G4: past a user's quota the kernel gives pipes of two pages, silently: those are not used"""
    number, size, held = scaled(1100, 60), scaled(2 * MIB, 1 * MIB), 1100
    # Another user, who may still read this tree.
    as_nobody = [
        *(str(require("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    ]
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    upstream = load("upstream-streams", bytes=size)
    try:
        with subprocess.Popen(
            [*as_nobody, sys.executable, "-c", HOLDER, str(held)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdout is not None
            assert int(holder.stdout.readline()) < 64 * KIB  # the quota is used up
            with program(folder, config([upstream.port], more=QUIET), wrap=as_nobody) as lb:
                sockets, others = lb.sockets(), pipes(lb).keys()
                clients = load(
                    "client-streams", port=lb.address()[1], number=number, at_once=number, bytes=size
                )
                assert clients.done()["checked_bytes"] == number * size
                assert all(size >= 64 * KIB for pipe, size in pipes(lb).items() if pipe not in others)
                at_rest(lb, sockets)
            holder.communicate("")
    finally:
        shutil.rmtree(folder)
    assert upstream.done()["checked_bytes"] == number * size
    figure(connections=number, checked_bytes=2 * number * size, pipes_of_others=held)


def pipes(lb: Program) -> dict[str, int]:
    """The pipes the program holds, and their sizes in bytes."""
    found = {}
    for name in os.listdir(f"/proc/{lb.pid}/fd"):
        path = f"/proc/{lb.pid}/fd/{name}"
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind = os.readlink(path)
            if not re.fullmatch(r"pipe:\[\d+\]", kind):
                continue
            end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            found[kind] = fcntl.fcntl(end, fcntl.F_GETPIPE_SZ)
            os.close(end)
    return found


def test_readers_that_stall_cost_no_more_than_their_buffers(
    start: Start, load: Begin, figure: Figure
) -> None:
    """E4: every connection has one; memory is bounded, the processor rests, and a new connection is served at once"""
    number = scaled(1000, 150)
    endless, echo = load("upstream-endless"), load("upstream-echo")
    small = "tcp: {send_buffer: 64KiB, receive_buffer: 64KiB}"
    lb = start(
        "admin: {bind: '127.0.0.1:0'}\n"
        f"listeners:\n  in: {{bind: '127.0.0.1:0', upstream: up, {small}}}\n"
        "  echo: {bind: '127.0.0.1:0', upstream: echo}\n"
        f"upstreams:\n  up: {{endpoints: ['127.0.0.1:{endless.port}']}}\n"
        f"  echo: {{endpoints: ['127.0.0.1:{echo.port}']}}\n"
    )
    before = lb.memory_bytes()
    clients = load("client-stalled", port=lb.address()[1], number=number)
    lb.until(lambda: clients.counts().get("open") == number)
    still(lb)
    spent: list[float] = []
    while not spent or min(spent) > scaled(5.0, 1.0) * 0.1:
        assert len(spent) < 5, spent  # on a busy machine what stands still for a moment may yet go on
        used = lb.cpu_s()
        lb.passes(scaled(5.0, 1.0))
        spent.append(lb.cpu_s() - used)
    each = (lb.memory_bytes() - before) / number
    served = load("client-short", port=lb.address("echo")[1], number=200).done()
    assert served == {"served": 200}
    assert each < 64 * KIB + 16 * KIB  # one direction's buffer, and what a session costs anyway
    clients.done()
    lb.until(lambda: lb.active() == 0)
    assert lb.total("lbproxy_relay_pending_bytes") == 0
    figure(stalled=number, kib_each=round(each / KIB, 1), cpu_s=round(min(spent), 2))


def still(lb: Program) -> None:
    """Wait until no byte has moved for a while."""
    moved = -1.0

    def same() -> bool:
        nonlocal moved
        before, moved = moved, lb.total("lbproxy_endpoint_received_bytes_total", upstream="up")
        lb.passes(0.2)
        return before == moved

    lb.until(same)
