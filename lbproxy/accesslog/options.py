"""What the access log records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AccessLogOptions:
    """One record a session, when it ends. `skip_empty` leaves out sessions without a byte either way."""

    enabled: bool = True
    events: tuple[Literal["end"], ...] = ("end",)
    skip_empty: bool = False
