"""A session of which one side was reset: what the other side is still given, and how long it may take."""

from __future__ import annotations

from typing import Final

from lbproxy.domain.session import EndReason
from lbproxy.relay.aio import kernel
from lbproxy.relay.aio.half import Half

STALL_S: Final = 1.0
"""How long the delivery of what a reset side had sent may make no progress."""


class Reset:
    """The half that is still delivered, why the session ends, and how the delivery gets on."""

    __slots__ = ("_left_bytes", "_progress_at", "_until", "error", "half", "reason")

    def __init__(self, half: Half, reason: EndReason, error: int, now: float, limit_ms: int) -> None:
        self.half = half
        self.reason = reason
        self.error = error
        self._until = now + limit_ms / 1000 if limit_ms else float("inf")
        self._progress_at = now
        self._left_bytes = -1

    def is_over(self, now: float) -> bool:
        """Whether everything was delivered and acknowledged, or has waited long enough."""
        half = self.half
        left_bytes = kernel.unacknowledged_bytes(half.sink) + half.pending_bytes()
        if not half.done:
            left_bytes += kernel.unread_bytes(half.source)
        elif not left_bytes:
            return True
        if self._left_bytes < 0 or left_bytes < self._left_bytes:
            self._left_bytes = left_bytes
            self._progress_at = now
        return now - self._progress_at >= STALL_S or now >= self._until
