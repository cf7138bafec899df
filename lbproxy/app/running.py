"""The program's live parts by name, and nothing else: what reload changes, metrics read and operations act on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from lbproxy.accesslog.writer import AccessLog
from lbproxy.app.upstreams import Upstream
from lbproxy.config.load import Loaded
from lbproxy.proxy.admission import Capacity
from lbproxy.proxy.dialing import Dialer
from lbproxy.proxy.listener import Listener
from lbproxy.proxy.routing import Route
from lbproxy.relay.contract import Relay


@dataclass(slots=True)
class Running:
    """Names that left the configuration stay here until their last session has ended (`forget_departed`)."""

    loop: asyncio.AbstractEventLoop
    loaded: Loaded
    capacity: Capacity
    dialer: Dialer
    relay: Relay
    access_log: AccessLog | None = None
    # Replaced by reloads; what they dropped still counts.
    retired_logs: list[AccessLog] = field(default_factory=list)
    listeners: dict[str, Listener] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    departed: list[Upstream] = field(default_factory=list)  # whose name another kind of upstream has taken
    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    reloads: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("applied", "unchanged", "invalid", "failed"), 0)
    )
    last_reload_successful: bool = True
    draining: bool = False

    def forget_departed(self) -> bool:
        """Drop listeners and upstreams that are neither configured nor used by a session. True when some are left of which no pool's
        deadline tells: they have to be looked at again."""
        configuration = self.loaded.configuration
        for name in [
            n for n, each in self.listeners.items() if n not in configuration.listeners and not each.active
        ]:
            del self.listeners[name]
        for name, upstream in list(self.upstreams.items()):
            if name not in configuration.upstreams and upstream.forget():
                del self.upstreams[name]
        self.departed = [upstream for upstream in self.departed if not upstream.forget()]
        for listener, upstream_name in list(self.routes):
            if listener not in self.listeners or upstream_name not in self.upstreams:
                del self.routes[listener, upstream_name]
        staying = [
            *self.departed,
            *(each for name, each in self.upstreams.items() if name not in configuration.upstreams),
        ]
        return any(name not in configuration.listeners for name in self.listeners) or any(
            each.pool.options.kind == "original_dst" for each in staying
        )
