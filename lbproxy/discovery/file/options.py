"""How a file of endpoints is followed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The file is looked at every `interval_s` even where the kernel tells of no change (network file systems)."""

    path: Path
    interval_s: float = 5.0
