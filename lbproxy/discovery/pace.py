"""How fast a registry that says nothing new, or fails, is asked again. A change is never kept waiting by this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbproxy.domain.backoff import Backoff
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random

RETRY: Final = Backoff(base_s=0.2, cap_s=30.0, floor_s=0.1)
STEADY_S: Final = 2.0
# Of what a registry asks for, later: it asks the same of everybody, who must not come back together.
ASKED_SPREAD: Final = 0.1

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


class Retries:
    """The waits after errors: a back-off with full jitter, or longer where the registry asks for that.

    A registry may let us list what there is and not watch it, and each list of a large service is dear. So where it is the watch that
    fails, a row of failures ends with `STEADY_S` without one, and not with the list in between.
    """

    def __init__(self, clock: Callable[[], float], rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._failures = 0
        self._well_since: float | None = None  # None: the last word was an error

    def well(self) -> None:
        """It has answered."""
        if self._well_since is None:
            self._well_since = self._clock()

    def failed(self, error: RegistryError) -> float:
        """It has not: seconds to wait before the next question."""
        since, self._well_since = self._well_since, None
        if since is not None and not (error.listed and self._clock() - since < STEADY_S):
            self._failures = 0
        wait_s = RETRY.wait_s(self._failures, self._rng)
        self._failures += 1
        return max(wait_s, (error.retry_after_s or 0.0) * (1.0 + ASKED_SPREAD * self._rng.random()))
