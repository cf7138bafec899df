"""The sockets that dnspython asks over, made so that a question may be cancelled at any point.

uvloop (0.23) forgets the transport of a `create_datagram_endpoint` that is cancelled before it has returned: nobody closes its socket, and
the loop's own close waits for it for ever.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import dns.asyncbackend


class _Backend(type(dns.asyncbackend.get_backend("asyncio"))):  # type: ignore[misc]
    """dnspython's own for asyncio; its class has no public name."""

    async def make_socket(self, af: int, socktype: int, *given: Any, **named: Any) -> Any:
        """The caller owns the socket. Raises OSError. Cancelled, it first lets the socket come into being (a turn or two of the loop)
        and closes it."""
        if socktype != socket.SOCK_DGRAM:  # a stream's connect closes what it has begun
            return await super().make_socket(af, socktype, *given, **named)
        made: list[Any] = []
        failures: list[OSError] = []

        async def make() -> None:
            try:
                made.append(await super(_Backend, self).make_socket(af, socktype, *given, **named))
            except OSError as error:
                failures.append(error)

        async with asyncio.TaskGroup() as group:
            making = group.create_task(make(), name="DNS socket")
            try:
                await asyncio.shield(making)
            except asyncio.CancelledError:
                await asyncio.wait([making])
                for each in made:
                    await each.close()
                raise
        if failures:
            raise failures[0]
        return made[0]


BACKEND: Final = _Backend()
