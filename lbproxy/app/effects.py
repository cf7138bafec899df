"""Carrying out what the pools decided."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lbproxy.domain.effects import CloseSessions, Effect, EndpointAdded, EndpointForgotten, Notice
from lbproxy.proxy.dialing import Dialer
from lbproxy.relay.contract import Relay

logger = logging.getLogger("lbproxy.pool")


class EffectRunner:
    """Synchronous: when it returns, everything is done. `attach` comes before the first effect."""

    def attach(self, relay: Relay, dialer: Dialer) -> None:
        self._relay = relay
        self._dialer = dialer

    def __call__(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case EndpointAdded(endpoint=endpoint):
                    endpoint.slot = self._relay.open_slot()
                case EndpointForgotten(endpoint=endpoint):
                    self._relay.close_slot(endpoint.slot)
                    endpoint.slot = -1
                case CloseSessions(upstream=upstream, endpoint=endpoint, reason=reason):
                    number = self._dialer.close_sessions(endpoint, reason)
                    logger.info(
                        "upstream %s: %d sessions of %s closed (%s)", upstream, number, endpoint.label, reason
                    )
                case Notice(upstream=upstream, event=event, message=message):
                    logger.info("upstream %s: %s: %s", upstream, event, message)
