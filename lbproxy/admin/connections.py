"""Who is connected to one of our addresses, and who of them gives way when there are too many.

Refusing the newcomer would let anybody keep the probes out, by connecting and saying nothing: so the one that has been silent longest
makes room, and a newcomer is refused only when all the others are being answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_COMING_S: Final = 5.0
"""How long a connection that was accepted may have no transport yet; later it has lost it again."""


class Connections:
    """At most `most`, each a protocol of aiohttp's. `clock` gives monotonic seconds."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._silent: dict[web.RequestHandler, float] = {}  # since when; the longest first
        self._asking: set[web.RequestHandler] = set()

    def make_room(self) -> bool:
        """Whether there is room for one more; the longest silent one is cut if that makes it."""
        now = self._clock()
        for each, since in list(self._silent.items()):
            transport = each.transport
            if now - since > _COMING_S if transport is None else transport.is_closing():
                del self._silent[each]
        if len(self._silent) + len(self._asking) < self._most:
            return True
        for each in self._silent:
            if each.transport is not None:
                each.transport.abort()
                del self._silent[each]
                return True
        return False

    def add(self, newcomer: web.RequestHandler) -> None:
        """One that was just accepted."""
        self._silent[newcomer] = self._clock()

    def middleware(self) -> Middleware:
        """Goes before everything else: what passes through it is being answered."""

        @web.middleware
        async def asking(request: web.Request, handler: Handler) -> web.StreamResponse:
            who = request.protocol
            self._silent.pop(who, None)
            self._asking.add(who)
            try:
                return await handler(request)
            finally:
                self._asking.discard(who)
                self._silent[who] = self._clock()

        return asking
