"""Who has registered with an upstream, and until when. Pure: the time comes in.

The leases of an upstream outlive reloads and the source that follows them; they end with the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.push.options import MOST_LEASES
from lbproxy.domain.address import Address, HostName

Target = Address | HostName


class LeasesFullError(Exception):
    """No more endpoints can register."""


@dataclass(frozen=True, slots=True)
class Lease:
    candidate: Candidate
    lease_s: float
    expires_at: float


class Leases:
    """One upstream's. `fresh` until somebody has asked what there is: of what an earlier process knew, nothing is known.

    Beyond `limit` nobody new is taken. `changed` is called when there is something for a follower to do: it differs what exists, or something ends earlier than before.
    """

    def __init__(self, limit: int = MOST_LEASES) -> None:
        self.limit = limit
        self._leases: dict[Target, Lease] = {}
        self._candidates: tuple[Candidate, ...] | None = ()
        # No lease ends earlier than this: a renewal costs no look at all the others.
        self._nothing_before = math.inf
        self.fresh = True
        self.changed: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._leases)

    def put(self, target: Target, candidate: Candidate, lease_s: float, now: float) -> bool:
        """Register, or renew with what holds from now on; True when it is new. Raises LeasesFullError."""
        self.expire(now)
        before = self._leases.get(target)
        if before is None and len(self._leases) >= self.limit:
            raise LeasesFullError(f"{self.limit} endpoints have registered: no more are taken")
        lease = Lease(candidate, lease_s, now + lease_s)
        self._leases[target] = lease
        self._nothing_before = min(self._nothing_before, lease.expires_at)
        if before is None or before.candidate != candidate:
            self._differ()
        elif lease.expires_at < before.expires_at:
            self.changed()
        return before is None

    def drop(self, target: Target, now: float) -> bool:
        """End a lease; False when there is none."""
        self.expire(now)
        if self._leases.pop(target, None) is None:
            return False
        self._differ()
        return True

    def expire(self, now: float) -> int:
        """End what was not renewed; how many leases those are."""
        if now < self._nothing_before:
            return 0
        ended = [target for target, lease in self._leases.items() if lease.expires_at <= now]
        for target in ended:
            del self._leases[target]
        self.next_expiry()
        if ended:
            self._differ()
        return len(ended)

    def next_expiry(self) -> float | None:
        """When the next one ends unless it is renewed; None without any."""
        self._nothing_before = min((lease.expires_at for lease in self._leases.values()), default=math.inf)
        return None if self._nothing_before == math.inf else self._nothing_before

    def candidates(self) -> tuple[Candidate, ...]:
        """In the order in which they came; the same object as long as nothing differs."""
        if self._candidates is None:
            self._candidates = tuple(lease.candidate for lease in self._leases.values())
        return self._candidates

    def _differ(self) -> None:
        self._candidates = None
        self.changed()
