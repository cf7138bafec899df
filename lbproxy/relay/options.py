"""How the relay is built: read once at start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RelayChoice:
    """`kind` auto takes the best relay that can be had here. `threads` None means one a CPU (the native relay only)."""

    kind: Literal["auto", "native", "asyncio"] = "auto"
    threads: int | None = None
