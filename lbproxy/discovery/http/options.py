"""What a source of the kind `http` is configured with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpOptions:
    url: str
    interval_s: float = 10.0
