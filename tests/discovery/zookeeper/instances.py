"""Instances that register in ZooKeeper as their own libraries do it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from kazoo.client import KazooClient

HOLDS_A_NODE: Final = """
import sys, threading
from kazoo.client import KazooClient
client = KazooClient(sys.argv[1], timeout=float(sys.argv[3]))
client.start()
client.create(sys.argv[2], b"", ephemeral=True, makepath=True)
print("there", flush=True)
threading.Event().wait()
"""


class Instances:
    """One client that makes, changes and deletes nodes, each step done when it returns."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.client = KazooClient(f"127.0.0.1:{port}", timeout=10.0, **settings)

    async def create(self, path: str, data: str = "", **settings: Any) -> None:
        settings = {"ephemeral": True, "makepath": True, **settings}
        await asyncio.to_thread(self.client.create, path, data.encode(), **settings)

    async def set(self, path: str, data: str) -> None:
        await asyncio.to_thread(self.client.set, path, data.encode())

    async def delete(self, path: str) -> None:
        await asyncio.to_thread(self.client.delete, path)


@asynccontextmanager
async def instances(port: int, **settings: Any) -> AsyncIterator[Instances]:
    """Their session ends with the block, and every node of theirs with it."""
    one = Instances(port, **settings)
    await asyncio.to_thread(one.client.start)
    try:
        yield one
    finally:
        await asyncio.to_thread(one.client.stop)
        one.client.close()


def process_with_node(port: int, path: str, timeout_s: float) -> subprocess.Popen[str]:
    """An instance in a process of its own that has made its node; to be killed by the test."""
    command = [sys.executable, "-c", HOLDS_A_NODE, f"127.0.0.1:{port}", path, str(timeout_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "there\n"
    return process
