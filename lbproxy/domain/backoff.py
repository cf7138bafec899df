"""Exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lbproxy.domain.strategy import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th wait (from 0) lies in [floor_s, min(cap_s, base_s * 2**n)], uniformly."""

    base_s: float
    cap_s: float
    floor_s: float = 0.0

    def wait_s(self, attempt: int, rng: Random) -> float:
        ceiling: Final = min(self.cap_s, self.base_s * 2.0 ** min(attempt, 60))
        return max(self.floor_s, ceiling * rng.random())
