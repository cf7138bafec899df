"""Which addresses are our own, so that no endpoint is one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbproxy.app.running import Running
from lbproxy.domain.address import Address
from lbproxy.wire.local import Locals


class OwnAddresses:
    """`admin` gives the addresses of the admin interface that are bound by now."""

    def __init__(
        self, running: Running, admin: Callable[[], Sequence[Address]], clock: Callable[[], float]
    ) -> None:
        self._running = running
        self._admin = admin
        self._locals = Locals(clock)

    def is_listener(self, address: Address) -> bool:
        """True for an address that one of our listeners serves: dialling it would be a loop."""
        return any(
            self._serves(own, address)
            for listener in self._running.listeners.values()
            for own in listener.addresses
        )

    def is_admin(self, address: Address) -> bool:
        """True for an address that the admin interface serves, or is about to."""
        options = self._running.loaded.configuration.admin
        known = (options.bind, options.metrics_bind, *self._admin())
        return any(self._serves(own, address) for own in known if own is not None)

    def _serves(self, own: Address, address: Address) -> bool:
        if own.port != address.port:
            return False
        # [::] may serve IPv4, too; 0.0.0.0 serves nothing else.
        within = own.family == "inet6" or address.family == "inet"
        return own == address or (
            own.is_wildcard and within and address.family != "unix" and self._locals.holds(address.host)
        )
