"""When a session ends if no byte moves until then, and why: pure arithmetic over one submit's options."""

from __future__ import annotations

from lbproxy.domain.session import EndReason
from lbproxy.relay.contract import RelayOptions

Limit = tuple[float, EndReason]
"""A moment of the relay's clock, and the reason with which the session ends there."""


def while_connecting(options: RelayOptions, started_at: float) -> Limit | None:
    """The limit of a dial that was submitted at `started_at`. None: it may take for ever."""
    return _earliest(
        (started_at, options.connect_timeout_ms, EndReason.CONNECT_TIMEOUT),
        (started_at, options.max_duration_ms, EndReason.MAX_DURATION),
    )


def while_relaying(
    options: RelayOptions, started_at: float, moved_at: float, half_closed_at: float | None
) -> Limit | None:
    """The limit of a session whose last byte moved at `moved_at`. None: it may stay for ever."""
    half_close_ms = options.half_close_timeout_ms if half_closed_at is not None else 0
    return _earliest(
        (started_at, options.max_duration_ms, EndReason.MAX_DURATION),
        (moved_at, options.idle_timeout_ms, EndReason.IDLE_TIMEOUT),
        (max(moved_at, half_closed_at or 0.0), half_close_ms, EndReason.HALF_CLOSE_TIMEOUT),
    )


def _earliest(*limits: tuple[float, int, EndReason]) -> Limit | None:
    """The first of (since, milliseconds, reason); 0 milliseconds are no limit."""
    return min(
        ((since + limit_ms / 1000, reason) for since, limit_ms, reason in limits if limit_ms), default=None
    )
