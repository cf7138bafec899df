"""Every relay that the conformance suite runs against: name -> how to make one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lbproxy.relay.aio.relay import AsyncioRelay
from lbproxy.relay.contract import EventsCallback, Relay
from lbproxy.relay.native.relay import NativeRelay, available

Factory = Callable[[asyncio.AbstractEventLoop, EventsCallback], Relay]

IMPLEMENTATIONS: dict[str, Factory] = {"asyncio": AsyncioRelay}
if available() is None:  # tests/relay/native says where it has to be
    IMPLEMENTATIONS["native"] = lambda loop, on_events: NativeRelay(loop, on_events, threads=2)
