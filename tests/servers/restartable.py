"""A server of others that is stopped and started again on the same port, within one test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from tests.servers.process import Server

Run = Callable[[int | None, int], AbstractContextManager[Server]]
"""Takes the port (None: any) and a number that is another one whenever the server is to have forgotten everything."""


class Restartable:
    """Runs from the start; `stack` ends whatever still runs."""

    def __init__(self, run: Run, stack: ExitStack) -> None:
        self._run = run
        self._stack = stack
        self._forgotten = 0
        self.server = stack.enter_context(run(None, 0))
        self.port = self.server.port

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self, *, empty: bool = False) -> None:
        """`empty`: without anything it knew."""
        self._forgotten += empty
        begun = self._run(self.port, self._forgotten)
        self.server = await asyncio.to_thread(self._stack.enter_context, begun)
