"""Conformance F8: the wall clock is set forward and back under a running instance; only what is written down follows it."""

from __future__ import annotations

import mmap
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, listen
from tests.e2e.program import config
from tests.servers.programs import require

HOUR_S = 3600
LIMITS = "timeouts: {idle: 30m, half_close: 30m, max_duration: 30m}"


@contextmanager
def another_clock(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[int], None]]]:
    """The environment in which a program's wall clock can be set, and what sets it off by so many seconds (see clock.c)."""
    library, off = folder / "clock.so", folder / "off"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([require("cc"), "-shared", "-fPIC", "-O1", "-o", library, source], check=True, timeout=60)
    off.write_bytes(bytes(8))
    with off.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:

        def set_off(seconds: int) -> None:
            shared[:] = struct.pack("=q", seconds)

        yield {"LD_PRELOAD": str(library), "LBPROXY_CLOCK": str(off)}, set_off


@pytest.mark.parametrize("relay", ["native", "asyncio"])
def test_no_limit_is_met_early_when_the_wall_clock_is_set(start: Start, tmp_path: Path, relay: str) -> None:
    """F8: limits of half an hour, and a drain's deadline, over steps of an hour; the log has the new time"""
    listening, port = listen()
    with listening, another_clock(tmp_path) as (environ, set_off), ExitStack() as open_:
        lb = start(config([port], listener=LIMITS, more=f"runtime: {{relay: {relay}}}"), environ=environ)
        pairs = [
            (open_.enter_context(connect(lb.address())), open_.enter_context(accept(listening)))
            for _ in range(2)
        ]
        (client, upstream), (half, half_upstream) = pairs
        half.sendall(b"!")
        half.shutdown(socket.SHUT_WR)
        assert (half_upstream.recv(1), half_upstream.recv(1)) == (b"!", b"")
        lb.order("up", port, "drain", deadline_s=HOUR_S / 2)
        for off_s in (HOUR_S, -HOUR_S):
            set_off(off_s)
            lb.passes(0.5)
            for receiver, sender in pairs:
                sender.sendall(b"still here")
                assert receiver.recv(10) == b"still here"
            assert lb.ended() == []
        set_off(HOUR_S)
        client.close()
        upstream.close()
        lb.until(lambda: len(lb.ended()) == 1)
        ended_at = datetime.fromisoformat(lb.ended()[0]["ts"])
        assert ended_at - datetime.now(UTC) > timedelta(minutes=50)
        assert lb.ended()[0]["duration_ms"] < 1000 * HOUR_S / 2
