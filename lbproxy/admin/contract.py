"""What the admin interface asks of the program: implemented by `app`, faked in tests.

Methods return plain JSON-ready data (dicts, lists, str, int, float, bool, None) so that the wire form is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]


class NotFound(Exception):
    """No upstream, endpoint or session of that name; the message says which."""


class Refused(Exception):
    """Understood, and not possible in this state (for instance an invalid configuration on reload)."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` is empty when ready; `warnings` never make it unready."""

    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Operations(Protocol):
    """All methods are synchronous and quick, but `reload`. Called on the event loop."""

    def readiness(self, *, strict: bool) -> Readiness: ...

    def config(self) -> Json:
        """The configuration in force, secrets redacted."""

    def listeners(self) -> Sequence[Json]: ...

    def upstreams(self) -> Sequence[Json]: ...

    def upstream(self, name: str) -> Json:
        """One upstream with its endpoints. Raises NotFound."""

    def sessions(self, *, limit: int, after: int) -> tuple[Sequence[Json], int | None]:
        """Up to `limit` live sessions with an id above `after`, in id order, and the id to go on after, None at the end."""

    def drain_endpoint(self, upstream: str, address: str, *, deadline_s: float | None) -> Json:
        """No new sessions for it; with a deadline, those left then are closed. Raises NotFound."""

    def undrain_endpoint(self, upstream: str, address: str) -> Json: ...

    def set_weight(self, upstream: str, address: str, weight: int | None) -> Json:
        """None lifts the override. Raises NotFound; ValueError when out of range."""

    def drain_upstream(self, upstream: str, *, deadline_s: float | None) -> Json: ...

    def drain(self) -> None:
        """Begin to drain the process, as SIGTERM does."""

    async def reload(self) -> Json:
        """Read the configuration again and apply the difference: `{"result": applied | unchanged, "changes": [...],
        "restart_needed": [...]}`. Raises Refused with every error in it; then nothing has changed."""

    def kill_session(self, session: int) -> None:
        """Reset one session. Raises NotFound."""
