"""What a source of the kind `push` is configured with, and the bounds of a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_LEASE_S: Final = 30.0
LEAST_LEASE_S: Final = 1.0
MOST_LEASE_S: Final = 3600.0
MOST_LEASES: Final = 16384  # of one upstream


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Nothing: who registers says everything. There is one such source an upstream."""
