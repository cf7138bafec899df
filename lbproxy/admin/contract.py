"""What the admin interface asks of the program: implemented by `app`, faked in tests.

Methods return plain JSON-ready data in the shapes of `lbproxy.admin.shapes`; the wire form is decided in this package
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lbproxy.admin.shapes import (
    EndpointStatus,
    LeaseStatus,
    ListenerStatus,
    ObeyResult,
    RegistrationStatus,
    ReloadResult,
    SessionStatus,
    UpstreamDetail,
    UpstreamStatus,
)

Json = dict[str, Any]

RenderMetrics = Callable[[str], Awaitable[tuple[list[bytes], str]]]
"""Takes the Accept header (may be ""); returns the page in pieces and its content type."""


class NotFound(Exception):
    """No upstream, endpoint or session of that name; the message says which."""


class Refused(Exception):
    """Understood, and not possible in this state (for instance an invalid configuration on reload). `errors` holds a line
    for each thing that is wrong, where the message alone does not say all."""

    def __init__(self, message: str, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class Unacceptable(Exception):
    """Understood, and refused for what it asks for (an endpoint that nobody should dial): trying again will not help."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What an endpoint says of itself when it registers, for `lease_s` seconds from now."""

    lease_s: float
    weight: int = 1
    zone: str | None = None
    priority: int = 0
    max_connections: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` is empty when ready; `warnings` never make it unready."""

    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Operations(Protocol):
    """All methods are synchronous and quick, but `reload` and `obey`. Called on the event loop.

    `address` is an endpoint's text form as in `EndpointStatus.address`; another spelling of the same address
    (`[::ffff:10.0.0.1]:80`) may be understood or be NotFound.
    """

    def readiness(self, *, strict: bool) -> Readiness: ...

    def config(self) -> Json:
        """The configuration in force, secrets redacted."""

    def listeners(self) -> Sequence[ListenerStatus]:
        """All of them, in the configuration's order; ones that a reload removed stay while they have sessions."""

    def registrations(self) -> Sequence[RegistrationStatus]:
        """Every service that is registered, to be, or not yet deregistered."""

    def upstreams(self) -> Sequence[UpstreamStatus]:
        """All of them, in the configuration's order."""

    def upstream(self, name: str, *, limit: int, after: str) -> UpstreamDetail:
        """One upstream with up to `limit` (at least 1) endpoints whose address text is above `after` ("" for the first page).
        Raises NotFound."""

    def sessions(
        self, *, limit: int, after: int, upstream: str | None = None
    ) -> tuple[Sequence[SessionStatus], int | None]:
        """Up to `limit` live sessions with an id above `after`, in id order, and the id to go on after, None at the end.
        With `upstream`, only its sessions; raises NotFound when there is none of that name."""

    def drain_endpoint(self, upstream: str, address: str, *, deadline_s: float | None) -> EndpointStatus:
        """No new sessions for it; with a deadline, those left then are closed. Raises NotFound."""

    def undrain_endpoint(self, upstream: str, address: str) -> EndpointStatus:
        """Lifts `drain_endpoint`, and the endpoint's share in `drain_upstream`. Raises NotFound."""

    def set_weight(self, upstream: str, address: str, weight: int | None) -> EndpointStatus:
        """None lifts the override. Raises NotFound; ValueError when out of range."""

    def drain_upstream(self, upstream: str, *, deadline_s: float | None) -> UpstreamStatus:
        """Drains every endpoint there is and every one that appears until `undrain_upstream`. Raises NotFound."""

    def undrain_upstream(self, upstream: str) -> UpstreamStatus:
        """Lifts every drain in the upstream, also those of single endpoints. Raises NotFound."""

    async def obey(self, upstream: str, source: str) -> ObeyResult:
        """Have the source's last answer obeyed: the endpoints that are held at this moment are let go, this once. Raises NotFound,
        and Refused when nothing is held."""

    def register(self, upstream: str, address: str, registration: Registration) -> tuple[LeaseStatus, bool]:
        """Take an endpoint into the upstream until the lease ends, or renew its lease with what holds from now on; True when it is
        new. `address` is `host:port`, in any spelling. Raises NotFound for the upstream, ValueError for what is no address,
        Unacceptable for an endpoint that is refused, Refused when there are too many."""

    def deregister(self, upstream: str, address: str) -> None:
        """End a lease at once. Raises NotFound when there is none, ValueError for what is no address."""

    def drain(self) -> None:
        """Begin to drain the process, as SIGTERM does. Called again, it does nothing."""

    async def reload(self) -> ReloadResult:
        """Read the configuration again and apply the difference. Raises Refused with every error in it (`errors`); then
        nothing has changed."""

    def kill_session(self, session: int) -> None:
        """Reset one session. Raises NotFound."""
