"""Who is connected to one of our addresses, and who of them gives way when there are too many.

Refusing the newcomer would let anybody keep the probes out, by connecting and saying nothing: so the one that has been silent longest
makes room, and a newcomer is refused only when all the others are being answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware


class Connections:
    """At most `most`, each a protocol of aiohttp's; those that come in the same turn of the loop may exceed it until the next one."""

    def __init__(self, most: int) -> None:
        self._most = most
        # The longest silent first. Some may have gone, and some may have no transport yet.
        self._silent: dict[web.RequestHandler, None] = {}

    def make_room(self, present: Sequence[web.RequestHandler]) -> bool:
        """Whether there is room for one more beside those present; the longest silent ones are cut if that makes it."""
        if len(present) < self._most:
            if len(self._silent) > 2 * self._most:
                self._forget(present)
            return True
        open_ = {each for each in present if each.transport is not None and not each.transport.is_closing()}
        excess = len(open_) - self._most + 1
        for each in [each for each in self._silent if each in open_][: max(0, excess)]:
            del self._silent[each]
            if each.transport is not None:
                each.transport.abort()
                excess -= 1
        return excess <= 0

    def add(self, newcomer: web.RequestHandler) -> None:
        """One that was just accepted."""
        self._silent[newcomer] = None

    def middleware(self) -> Middleware:
        """Goes before everything else: what passes through it is being answered."""

        @web.middleware
        async def asking(request: web.Request, handler: Handler) -> web.StreamResponse:
            who = request.protocol
            self._silent.pop(who, None)
            try:
                return await handler(request)
            finally:
                if who.transport is not None:
                    self._silent[who] = None

        return asking

    def _forget(self, present: Sequence[web.RequestHandler]) -> None:
        """Those that have gone. The newest may only be about to come."""
        here = set(present)
        newest = list(self._silent)[-self._most :]
        self._silent = {each: None for each in self._silent if each in here} | dict.fromkeys(newest)
