"""Which relay this run gets: the native one where it can be had, unless the configuration says otherwise."""

from __future__ import annotations

import asyncio
import logging

from lbproxy.relay.aio.relay import AsyncioRelay
from lbproxy.relay.contract import EventsCallback, Relay
from lbproxy.relay.native.relay import NativeRelay, available, descriptors
from lbproxy.relay.options import RelayChoice

logger = logging.getLogger("lbproxy.app")


def why_not(choice: RelayChoice) -> str | None:
    """Why the configured relay cannot be had here; None if it can. `auto` always can."""
    return available() if choice.kind == "native" else None


def relay_fds(choice: RelayChoice) -> int:
    """The descriptors that the relay of this choice may take for itself, beside those of its sessions."""
    return 0 if choice.kind == "asyncio" or available() is not None else descriptors(choice.threads)


def make_relay(choice: RelayChoice, loop: asyncio.AbstractEventLoop, on_events: EventsCallback) -> Relay:
    """The relay for this run. Raises OSError if the native one was asked for and cannot start its threads."""
    if choice.kind == "asyncio":
        return AsyncioRelay(loop, on_events)
    missing = available()
    if missing is None:
        try:
            return NativeRelay(loop, on_events, choice.threads)
        except OSError as error:
            if choice.kind == "native":
                raise
            missing = f"its threads cannot be started: {error}"
    logger.warning("the native relay cannot be used, bytes go through the event loop: %s", missing)
    return AsyncioRelay(loop, on_events)
