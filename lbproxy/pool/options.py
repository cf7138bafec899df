"""How an upstream's pool behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class StrategyOptions:
    """`choices` belongs to least_connection: None looks at all endpoints, N at that many weighted draws."""

    type: Literal["round_robin", "least_connection", "random"] = "round_robin"
    choices: int | None = None


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """`kind` original_dst has no members: each session dials the address its client meant. Sessions of an endpoint that its source no
    longer names are closed after `removal_deadline_s`; None: they stay."""

    name: str
    kind: Literal["endpoints", "original_dst"] = "endpoints"
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    removal_deadline_s: float | None = None
