"""Every relay that the conformance suite runs against: name -> how to make one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lbproxy.relay.aio.relay import AsyncioRelay
from lbproxy.relay.contract import EventsCallback, Relay

Factory = Callable[[asyncio.AbstractEventLoop, EventsCallback], Relay]

IMPLEMENTATIONS: dict[str, Factory] = {"asyncio": AsyncioRelay}
