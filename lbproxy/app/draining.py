"""Ending well: readiness off, listeners closed with nothing lost in their queues, sessions given time, the rest cut."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from lbproxy.app.running import Running
from lbproxy.domain.session import EndReason

logger = logging.getLogger("lbproxy.app")


async def drain(
    running: Running,
    hurry: asyncio.Event,
    deadline_s: float | None,
    leave: Callable[[asyncio.Event], Awaitable[None]],
) -> int:
    """Drain the process; the number of sessions that had to be cut. `hurry` set means: at once. `deadline_s` stands in for
    `runtime.drain_timeout`. `leave` takes us out of registries, within a bounded time, and at once in a hurry."""
    options = running.loaded.configuration.runtime
    running.draining = True
    logger.info("draining: %d sessions", len(running.dialer.sessions))
    await leave(hurry)
    if options.drain_delay_s:
        await _wait(hurry.wait(), options.drain_delay_s)
    for listener in running.listeners.values():
        listener.close()
    timeout_s = options.drain_timeout_s if deadline_s is None else deadline_s
    if not hurry.is_set() and timeout_s and len(running.dialer.sessions):
        await _first(hurry, running, timeout_s)
    cut = list(running.dialer.sessions)
    for session in cut:
        running.dialer.abort(session, EndReason.DRAINED, reset=False)
    if cut:
        logger.warning("drained: %d sessions cut", len(cut))
    else:
        logger.info("drained: every session ended by itself")
    # Their outcomes come with the next turn of the loop; the bound is for a defect, not for a peer.
    await _wait(running.dialer.sessions.wait_empty(), 5.0)
    return len(cut)


async def _first(hurry: asyncio.Event, running: Running, timeout_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        waits = [
            group.create_task(hurry.wait(), name="drain hurry"),
            group.create_task(running.dialer.sessions.wait_empty(), name="drain sessions"),
        ]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()


async def _wait(what: object, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await what  # type: ignore[misc]
