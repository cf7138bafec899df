"""How fast a registry that says nothing new is asked again. A change is never kept waiting by this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BURST: Final = 10
REFILL_A_S: Final = 2.0  # Consul wakes a watch of an unknown service for every registration of any other one


class Pace:
    """A token bucket for answers without a change."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = float(BURST)
        self._at = clock()

    def changed(self) -> None:
        """A change may bring one more answer that says nothing new (two watches that tell of it): that one is free."""
        self._tokens = min(float(BURST), self._tokens + 1.0)

    def unchanged(self) -> float:
        """Seconds to wait before the next question; 0 while there are tokens."""
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._at) * REFILL_A_S)
        self._at = now
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0.0 else -self._tokens / REFILL_A_S
