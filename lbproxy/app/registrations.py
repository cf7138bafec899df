"""Instances that register themselves: what they say becomes a candidate, and is looked at before they are told that all is well."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lbproxy.admin.contract import NotFound, Refused, Registration, Unacceptable
from lbproxy.admin.shapes import LeaseStatus
from lbproxy.app.upstreams import Upstream
from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.push.leases import LeasesFullError, Target
from lbproxy.discovery.vetting import (
    MAX_CONNECTIONS,
    MAX_METADATA,
    MAX_PRIORITY,
    MAX_TEXT,
    Refusal,
    undialable,
    vet,
)
from lbproxy.domain.address import Address, HostName, parse_target
from lbproxy.domain.membership import MAX_WEIGHT

_WHY: Final[Mapping[Refusal, str]] = MappingProxyType(
    {
        Refusal.ADDRESS: "an address that nobody can dial",
        Refusal.PORT: "the port is from 1 to 65535",
        Refusal.LINK_LOCAL: "link-local addresses are not dialled: the metadata services of clouds live there",
        Refusal.CLOUD_METADATA: "the address of a cloud's metadata service is not dialled",
        Refusal.OWN_LISTENER: "it is one of our own listeners: a loop",
        Refusal.VALUE: f"weight is from 0 to {MAX_WEIGHT}, priority from 0 to {MAX_PRIORITY}, max_connections from 1 to {MAX_CONNECTIONS}",
        Refusal.TOO_LONG: f"texts are up to {MAX_TEXT} characters long, and there are up to {MAX_METADATA} in metadata",
    }
)


def register(upstream: Upstream, address: str, registration: Registration) -> tuple[LeaseStatus, bool]:
    """As `Operations.register`."""
    if upstream.options.pool.kind != "endpoints":
        raise Refused(f"upstream {upstream.name} dials where its client meant to go: it has no endpoints")
    target = _target(address)
    candidate = Candidate(
        target.name if isinstance(target, HostName) else target.host,
        target.port,
        registration.weight,
        registration.priority,
        registration.zone,
        registration.max_connections,
        MappingProxyType(dict(registration.metadata)),
    )
    refusal = _refusal(upstream, target, candidate)
    if refusal is not None:
        raise Unacceptable(f"{target}: {_WHY[refusal]} ({refusal})")
    try:
        new = upstream.register(target, candidate, registration.lease_s)
    except LeasesFullError as error:
        raise Refused(f"upstream {upstream.name}: {error}") from error
    lease = LeaseStatus(
        address=str(target),
        lease_s=registration.lease_s,
        weight=candidate.weight,
        zone=candidate.zone,
        priority=candidate.priority,
        max_connections=candidate.max_connections,
        metadata=dict(candidate.metadata),
    )
    return lease, new


def deregister(upstream: Upstream, address: str) -> None:
    """As `Operations.deregister`."""
    target = _target(address)
    if not upstream.deregister(target):
        raise NotFound(f"{target} has not registered with upstream {upstream.name}")


def _target(address: str) -> Target:
    target = parse_target(address)
    if isinstance(target, Address) and target.family == "unix":
        raise Unacceptable(f"{target}: a unix socket is no address for others")
    return target


def _refusal(upstream: Upstream, target: Target, candidate: Candidate) -> Refusal | None:
    """What can be told of it now. What a host name resolves to is looked at when it does."""
    found = vet(candidate)
    if isinstance(found, Refusal):
        return found
    if isinstance(target, HostName):
        return None
    return Refusal.OWN_LISTENER if upstream.is_own(target) else undialable(target.host)
