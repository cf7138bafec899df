"""What a source is: something that knows which endpoints an upstream has, and says so whenever that changes.

- A source **reports** full answers, never a part: `report(membership)`. An error never shrinks an upstream: it is told by
  `failed(error)`, and what was reported before stands.
- Both callables are synchronous and called on the event loop's thread.
- `run` owns no task of its own beyond those of a TaskGroup inside it; `app` runs it in a named task behind a wall. It returns
  when there is nothing (more) to follow, and raises only what it did not foresee: `app` then runs it again after a back-off. So
  state that must last lives in the object, not in `run`.
- Retrying after foreseen errors (the registry is down, a name does not resolve) is the source's own: it knows when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lbproxy.domain.membership import Membership

Report = Callable[[Membership], None]
Failed = Callable[[Exception], None]
"""Told of every try that failed, for the log and the metrics; the error says whom it concerns."""


class Source(Protocol):
    """One upstream's source of members."""

    name: str
    """The label `source` in metrics: the type, such as `static`."""

    @property
    def refreshed_at(self) -> float | None:
        """Monotonic seconds since when everything reported is known to hold; None before the first full answer."""

    def initial(self) -> Membership | None:
        """What is known without waiting for anybody, or None: then there is nothing to apply yet."""

    async def run(self) -> None:
        """Follow the source for as long as there is something to follow."""
