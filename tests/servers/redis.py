"""Redis: a foreign protocol with long-lived connections, pipelining and a client of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.process import Server, serve
from tests.servers.programs import require


def redis(folder: Path) -> AbstractContextManager[Server]:
    """An empty Redis on a loopback port that keeps nothing on disk."""
    program = require("redis-server")
    command = [str(program), "--bind", "127.0.0.1", "--port", "@redis@", "--save", "", "--appendonly", "no"]
    return serve([*command, "--dir", str(folder)], folder)
