"""What the pool decided and `app` carries out. Plain data: deciding has no side effect outside the pool."""

from __future__ import annotations

from dataclasses import dataclass

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.session import EndReason


@dataclass(frozen=True, slots=True)
class EndpointAdded:
    """A new endpoint: open its counter slot before anything can be sent to it."""

    upstream: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class EndpointForgotten:
    """Removed long ago and without a session left: its series end and its counter slot closes."""

    upstream: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class CloseSessions:
    """End the endpoint's sessions now, for this reason."""

    upstream: str
    endpoint: Endpoint
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should read in the log; `event` is a stable word, `message` a sentence."""

    upstream: str
    event: str
    message: str


Effect = EndpointAdded | EndpointForgotten | CloseSessions | Notice
