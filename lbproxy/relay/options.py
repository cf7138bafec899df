"""How the relay is built: read once at start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MAX_THREADS: Final = 64
"""What an engine takes (ENGINE_MAX_THREADS in engine.h; a test holds them together)."""


@dataclass(frozen=True, slots=True)
class RelayChoice:
    """`kind` auto takes the best relay that can be had here. `threads` None means one a CPU (the native relay only)."""

    kind: Literal["auto", "native", "asyncio"] = "auto"
    threads: int | None = None
