"""What a source of the kind `push` is configured with, and how many leases there can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_LEASES: Final = 16384  # of one upstream


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Nothing: who registers says everything. There is one such source an upstream."""
