"""What a source is: something that knows which endpoints an upstream has, and says so whenever that changes.

- A source **reports** full answers, never a part: `report(membership, difference)`. An error never shrinks an upstream: it is told by
  `failed(error)`, and what was reported before stands.
- Both callables are synchronous and called on the event loop's thread.
- `run` owns no task of its own beyond those of a TaskGroup inside it; `app` runs it in a named task behind a wall. It returns
  when there is nothing (more) to follow, and raises only what it did not foresee: `app` then runs it again after a back-off. So
  state that must last lives in the object, not in `run`.
- Retrying after foreseen errors (the registry is down, a name does not resolve) is the source's own: it knows when.

A registry (Consul, etcd, a file, ...) is not a source by itself: it implements `Registry`, and `follow.FollowedSource` makes a source
of it, with the rules that hold for all of them: back-off, vetting, the guard against removals, and the state on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lbproxy.domain.membership import NO_METADATA, Difference, Membership

Report = Callable[[Membership, Difference | None], None]
"""A full answer, and how it differs from the one reported before it, where the source knows: then applying it is cheap."""
Failed = Callable[[Exception], None]
"""Told of every try that failed, for the log and the metrics; the error says whom it concerns, and when the next try comes if it knows."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source fares, for metrics and the admin pages. Counts since it was configured.

    `age_s` is the time since all that it said was known to hold; before its first answer the age of what the disk remembers, or else the
    time since it was configured: so that a registry which never answers is seen to be silent.

    `results` counts answers and tries: `applied`, `unchanged`, `held` (a removal was put off), `confirmed` (a second answer, or
    an operator, said the same: obeyed), `expired` (held for as long as configured: obeyed), `error`. `refused` counts entries that were not taken, by
    reason. `held` endpoints are in force though the registry's last answer leaves them out; `held_why` says in words what is waited
    for. `unverified`: nothing but the state on disk has spoken yet, saved `snapshot_age_s` ago. `asks_for` says in words what is
    followed, "" for what has no name; `endpoints` are in force, None where nobody counts.
    `retry_in_s` is how long it waits, after an error, before it asks again; None while it asks.
    """

    results: Mapping[str, int]
    age_s: float
    refused: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    held_why: str = ""
    unverified: bool = False
    snapshot_age_s: float | None = None
    error: str = ""
    asks_for: str = ""
    endpoints: int | None = None
    retry_in_s: float | None = None


class Source(Protocol):
    """One upstream's source of members."""

    name: str
    """The label `source` in metrics: the type, such as `static`; with a number where an upstream has several of a type."""

    @property
    def refreshed_at(self) -> float | None:
        """Monotonic seconds since when everything reported is known to hold; None before the first full answer."""

    @property
    def status(self) -> SourceStatus: ...

    def initial(self) -> Membership | None:
        """What is known without waiting for anybody, or None: then there is nothing to apply yet."""

    async def obey(self) -> int:
        """An operator wants the last answer obeyed: let go of the endpoints that are held now, this once. How many those were."""

    async def run(self) -> None:
        """Follow the source for as long as there is something to follow."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint as a registry tells it, before anybody trusts it: `vetting` decides what becomes of it.

    `host` is an IP literal or a host name. What the registry wrote into a number's place and is none is a -1 here, so that this
    one entry is refused, and counted, instead of the whole answer.
    """

    host: str
    port: int
    weight: int = 1
    priority: int = 0
    zone: str | None = None
    max_connections: int | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A full answer of a registry: everything that exists now, in an order of its own that does not change without a reason.

    `consistent`: as sure as this registry can be; False for a read that may lag behind (Consul's `stale`), which can not confirm a
    removal. `regressed`: the registry has lost its memory since the last answer (an index that went backwards, a restart).
    """

    candidates: tuple[Candidate, ...]
    consistent: bool = True
    regressed: bool = False


class Registry(Protocol):
    """One subject (a service, a prefix, a name, a file) in one registry. Both questions raise RegistryError, for everything that is
    not a full and plausible answer, within a bounded time; after an error the next call starts from nothing (index 0, a new list).

    `confirm` may be called while `next` waits, from another task; both may be cancelled at any point.
    """

    async def next(self) -> Answer:
        """The first time: what is. Later: wait until something may have changed, and say what is then. It may also return now and
        again with nothing new, which says that the registry is well: at least every 5 minutes where asking costs little."""

    async def confirm(self) -> Answer:
        """A second opinion, at once and as consistent as can be had; it does not disturb what `next` follows."""

    async def close(self) -> None:
        """Let go of every socket, thread and watch. Called once for each `run` of the source; `next` may be called again after it."""
