"""When sessions have to be looked at again: coarse buckets of session numbers, without a clock of their own.

One entry is an integer in a list: no timer object a session, and nothing to cancel. An entry is never moved when bytes
flow; whoever is called looks at the session's real deadline and adds it again if that has moved on. So entries of sessions
that have ended stay until their bucket is due, and `HORIZON_S` bounds how many those can be.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

TICK_S: Final = 0.02
"""A bucket's width: how late a deadline may be seen (never early)."""

HORIZON_S: Final = 10.0
"""The furthest entry. 1,000 sessions that have ended a second leave at most 10,000 stale integers behind."""

NEVER: Final = 1 << 62
"""A tick after every other."""


class Deadlines:
    """Buckets of keys by tick. Times are seconds of the caller's clock."""

    __slots__ = ("_buckets", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, list[int]] = {}
        self._ticks: list[int] = []  # a heap of the buckets' ticks, each once

    def add(self, key: int, at: float, now: float) -> int:
        """Have `key` called at `at`, or at the horizon if that is earlier; the tick in which it will be called.

        A key may be added more than once. The caller keeps the tick of the entry that counts and ignores the others.
        """
        horizon = now + HORIZON_S
        tick = math.ceil((min(horizon, at)) / TICK_S)
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [key]
            heapq.heappush(self._ticks, tick)
        else:
            bucket.append(key)
        return tick

    def due(self, now: float, limit: int) -> list[tuple[int, int]]:
        """Take out at most `limit` entries whose time has come, the earliest bucket first: (tick, key)."""
        found: list[tuple[int, int]] = []
        while self._ticks and self._ticks[0] * TICK_S <= now and len(found) < limit:
            tick = self._ticks[0]
            bucket = self._buckets[tick]
            room = limit - len(found)
            found += [(tick, key) for key in bucket[:room]]
            if room < len(bucket):
                del bucket[:room]
            else:
                del self._buckets[tick]
                heapq.heappop(self._ticks)
        return found

    def earliest(self) -> float | None:
        """When the next entry is due; None without entries."""
        return self._ticks[0] * TICK_S if self._ticks else None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))
