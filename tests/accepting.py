"""Accepting on a test's event loop, without losing what was accepted."""

from __future__ import annotations

import asyncio
import socket


async def accept(listening: socket.socket) -> socket.socket:
    """The next connection, which the caller owns; `listening` does not block. `loop.sock_accept` does the same, but accepts before
    its task runs again: a task that is cancelled in between never hears of the socket, and nobody closes it."""
    while True:
        try:
            client, _ = listening.accept()
        except BlockingIOError:
            await _readable(listening)
        else:
            client.setblocking(False)
            return client


async def _readable(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(listening.fileno(), told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(listening.fileno())
