"""How a name is followed in DNS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Record = Literal["a", "aaaa", "both", "srv"]


@dataclass(frozen=True, slots=True)
class DnsOptions:
    """`port` goes with every record but `srv`, which has its own. `servers` are (IP literal, port); empty: those of resolv.conf.
    A question takes at most `timeout_s`; the name is asked again when the TTL ends, kept within [`ttl_min_s`, `ttl_max_s`]."""

    name: str
    record: Record = "both"
    port: int | None = None
    servers: tuple[tuple[str, int], ...] = ()
    ttl_min_s: float = 1.0
    ttl_max_s: float = 60.0
    timeout_s: float = 5.0
