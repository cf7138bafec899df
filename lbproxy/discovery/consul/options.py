"""What a Consul source is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lbproxy.wire.consul_options import ConsulAccess

Consistency = Literal["default", "stale", "consistent"]
Unwell = Literal["drain", "remove", "use"]


@dataclass(frozen=True, slots=True)
class ConsulOptions:
    """One service, watched, or one prepared query (`query`, its name or id), asked every `interval_s`: exactly one of the two.

    `tags` (all of them) and `filter` choose among the instances, `near` puts those near a node first. A `stale` read is taken up to
    `max_stale_s` behind its leader. `critical` is what becomes of an instance whose own checks are critical, `warning` of one with a
    warning: use (with the weight for it), drain (weight 0) or remove. `address_from` names a tagged address to dial.
    """

    service: str = ""
    query: str = ""
    access: ConsulAccess = field(default_factory=ConsulAccess)
    tags: tuple[str, ...] = ()
    filter: str = ""
    near: str = ""
    consistency: Consistency = "default"
    max_stale_s: float = 10.0
    wait_s: float = 55.0
    interval_s: float = 10.0
    critical: Unwell = "drain"
    warning: Unwell = "use"
    address_from: str = "service"
