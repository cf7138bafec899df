"""`lbproxy demo` as a person meets it: start it, do what it says, end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.demo.demo import ADMIN_PORT, HOST, PROXY_PORT
from tests.patience import WITHIN_S

# One after the other: two demos that start at once might choose the same port.
pytestmark = pytest.mark.alone("demo")


class Demo:
    """A running demo; `text` is all it printed on starting."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "stderr.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lbproxy", "demo"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.text = self._read_until("Ctrl-C")
        self.proxy, self.admin = (int(port) for port in re.findall(rf"http://{HOST}:(\d+)/\s", self.text)[:2])

    def _read_until(self, words: str) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + WITHIN_S
        text = b""
        while words.encode() not in text:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert chunk, f"it said {text!r} and then nothing:\n{self.log.read_text()}"
            text += chunk
        return text.decode()

    def get(self, port: int, path: str) -> str:
        connection = http.client.HTTPConnection(HOST, port, timeout=WITHIN_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()
        finally:
            connection.close()

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN_S)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    assert running.process.stdout is not None
    with running.process, running.process.stdout:
        yield running
        if running.process.poll() is None:
            running.process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_what_it_says_and_ends_well(demo: Demo, number: signal.Signals) -> None:
    answers = {demo.get(demo.proxy, "/") for _ in range(4)}
    assert {answer.split()[2] for answer in answers} == {"swift", "steady", "slow", "sleepy"}
    assert "lbproxy_endpoint_connections_total" in demo.get(demo.admin, "/metrics")
    assert demo.stop(number) == 0
    assert "Traceback" not in demo.log.read_text()


def test_what_it_says_to_try_works(demo: Demo) -> None:
    lines = re.findall(r"^  (\S*(?:lbproxy|python -m lbproxy) .*?)(?:\s+#.*)?$", demo.text, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        done = subprocess.run(line.split(), capture_output=True, text=True, timeout=WITHIN_S, check=False)
        assert done.returncode == 0, (line, done.stderr)
    upstream = json.loads(demo.get(demo.admin, "/api/v1/upstreams/web"))
    assert sorted(endpoint["weight"] for endpoint in upstream["endpoints"]) == [1, 1, 1, 10]
    assert demo.stop(signal.SIGTERM) == 0


def test_taken_ports_are_replaced_and_said(tmp_path: Path) -> None:
    taken = []
    for port in (PROXY_PORT, ADMIN_PORT):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.append(holder)
        with contextlib.suppress(OSError):  # somebody else on this machine holds it: as good
            holder.bind((HOST, port))
            holder.listen()
    demo: Demo | None = None
    try:
        demo = Demo(tmp_path)
        assert demo.process.stdout is not None
        with demo.process.stdout:
            assert {demo.proxy, demo.admin}.isdisjoint({PROXY_PORT, ADMIN_PORT})
            assert demo.text.count("is taken") == 2
            assert "--admin" in demo.text
            assert demo.get(demo.proxy, "/").startswith("hello from")
            assert demo.stop(signal.SIGTERM) == 0
    finally:
        if demo is not None and demo.process.poll() is None:
            demo.process.kill()
        for holder in taken:
            holder.close()
