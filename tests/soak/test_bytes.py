"""Conformance A5, C8, K10: many streams at once, many resets, and a loop that stands still. No byte is lost, wrong or another's."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.program import Program, config
from tests.relay.scale import KIB, MIB, scaled
from tests.soak.conftest import Begin, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Figure = Callable[..., None]
QUIET = "log: {access: {enabled: false}}"


def is_native(lb: Program) -> bool:
    return lb.total("lbproxy_build_info", relay="native") == 1


def at_rest(lb: Program, sockets: int) -> None:
    """Wait until no session is left, and no descriptor of one."""
    lb.until(lambda: lb.active() == 0)
    lb.until(lambda: lb.sockets() <= sockets)
    assert lb.total("lbproxy_relay_sessions_active") == 0
    assert lb.total("lbproxy_relay_pending_bytes") == 0


def test_many_streams_at_once_keep_their_bytes_to_themselves(
    start: Start, load: Begin, figure: Figure
) -> None:
    """A5: each connection has streams of its own number both ways, checked byte by byte at both ends"""
    number, size = scaled(1000, 100), scaled(2 * MIB, 256 * KIB)
    upstream = load("upstream-streams", bytes=size)
    lb = start(config([upstream.port], more=QUIET))
    assert is_native(lb)
    sockets = lb.sockets()
    began = time.monotonic()
    clients = load("client-streams", port=lb.address()[1], number=number, at_once=number, bytes=size).done()
    took_s = time.monotonic() - began
    assert clients["checked_bytes"] == clients["sent_bytes"] == number * size
    at_rest(lb, sockets)
    served = upstream.done()
    assert served["checked_bytes"] == number * size
    assert served["accepted"] == number
    figure(connections=number, checked_bytes=2 * number * size, seconds=round(took_s, 1))


def test_resets_at_random_offsets_leave_nothing_behind(start: Start, load: Begin, figure: Figure) -> None:
    """C8: half of them by the client, half by the upstream, anywhere in a stream each way"""
    number = scaled(10_000, 600)
    upstream = load("upstream-resets", bytes=300 * KIB)
    lb = start(config([upstream.port]))
    sockets, memory = lb.sockets(), lb.memory_bytes()
    began = time.monotonic()
    clients = load("client-resets", port=lb.address()[1], number=number, bytes=300 * KIB).done()
    took_s = time.monotonic() - began
    assert clients["resets"] == number
    at_rest(lb, sockets)
    lb.until(lambda: len(lb.ended()) == number)
    reasons = Counter(line["reason"] for line in lb.ended())
    assert set(reasons) <= {"client_reset", "upstream_reset"}, reasons
    assert upstream.done()["open"] == 0
    figure(
        resets=number,
        seconds=round(took_s, 1),
        grown_kib=(lb.memory_bytes() - memory) // KIB,
        **dict(reasons),
    )


# Runs the program with its event loop under an order: SIGUSR1 blocks it for five seconds.
BLOCKABLE = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep({seconds}))
from lbproxy.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_bytes_move_while_the_loop_is_blocked(
    start: Start, load: Begin, figure: Figure, tmp_path: Path
) -> None:
    """K10: the loop answers nobody meanwhile, and the streams do not notice"""
    blocked_s = scaled(5.0, 1.5)
    script = tmp_path / "blockable.py"
    script.write_text(BLOCKABLE.format(seconds=blocked_s))
    upstream = load("upstream-endless")
    lb = start(config([upstream.port], more=QUIET), run=[sys.executable, str(script), "run"])
    clients = load("client-bulk", port=lb.address()[1], number=4, at_once=4)
    lb.until(lambda: clients.counts().get("received_bytes", 0) > 64 * MIB)

    def rate(seconds: float) -> float:
        before, began = clients.counts()["received_bytes"], time.monotonic()
        lb.passes(seconds)
        return (clients.counts()["received_bytes"] - before) / (time.monotonic() - began)

    rates: list[tuple[float, float]] = []
    while not rates or rates[-1][1] <= rates[-1][0] / 2:
        assert len(rates) < 5, (
            rates
        )  # somebody else may be busy in one half of a pair, and not in the other one
        free = rate(blocked_s * 0.9)
        os.kill(lb.pid, signal.SIGUSR1)
        blocked = rate(blocked_s * 0.9)
        began = time.monotonic()
        assert lb.ready()
        rates.append((free, blocked))
    figure(
        free_mib_s=int(free / MIB),
        blocked_mib_s=int(blocked / MIB),
        answered_after_s=round(time.monotonic() - began, 2),
    )
