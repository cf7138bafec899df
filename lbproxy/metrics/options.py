"""What the metrics page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """`endpoints`: per-endpoint series for all, for none, or for the first N of each upstream by sessions served."""

    endpoints: Literal["all", "none"] | int = "all"
