"""Where the host of a URL is, for aiohttp: asked of our own resolver, on the event loop.

aiohttp's own way is getaddrinfo in a thread, which cannot be cancelled: a dead name server fills the pool of threads, and
everything else that needs one waits behind it, the end of the process included (docs/decisions/0004-host-names.md).
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from lbproxy.domain.errors import ResolveError

if TYPE_CHECKING:  # dnspython, for those alone who ask
    from lbproxy.wire.resolver import Resolution

Resolve = Callable[[str], Awaitable["Resolution"]]


class Lookup(AbstractResolver):
    """What `resolve` (which raises ResolveError) says of a name. One that DNS does not know at all is asked of the system: of what else
    stands in its nsswitch.conf, which with a DNS that answers takes no time."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError, as aiohttp expects."""
        try:
            found = await self._resolve(host)
        except ResolveError as error:
            if not error.retryable:
                return await self._system.resolve(host, port, family)
            raise OSError(None, str(error).removeprefix(f"{host}: ")) from error
        wanted = [(ip, socket.AF_INET6 if ":" in ip else socket.AF_INET) for ip in found.addresses]
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=of, proto=0, flags=socket.AI_NUMERICHOST)
            for ip, of in wanted
            if family in {socket.AF_UNSPEC, of}
        ]

    async def close(self) -> None:
        """There is nothing to let go of."""
