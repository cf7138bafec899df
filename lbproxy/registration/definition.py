"""From what is configured and what a listener is bound to, to what Consul's agent is told. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from lbproxy.domain.address import Address
from lbproxy.registration.options import ServiceOptions

Status = Literal["passing", "warning", "critical"]

MAX_OUTPUT: Final = 1024
"""Characters of a check's output. The agent itself cuts at 4 KiB (check_output_max_size) and sends every change of it to its servers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says, and why."""

    status: Status
    output: str


@dataclass(frozen=True, slots=True)
class Definition:
    """One service as the agent knows it. `address` "" is the node's own."""

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    passing_weight: int = 1
    warning_weight: int = 1
    ttl_s: float = 15.0
    deregister_critical_after_s: float | None = None

    @property
    def check_id(self) -> str:
        """As Consul itself would name the only check of a service."""
        return f"service:{self.id}"

    def payload(self, verdict: Verdict) -> dict[str, Any]:
        """The body of `PUT /v1/agent/service/register`. The check begins with the verdict: Consul's own beginning is critical, and
        a registration that is repeated would tear a hole of some milliseconds."""
        check: dict[str, Any] = {
            "CheckID": self.check_id,
            "Name": "lbproxy readiness",
            "TTL": _milliseconds(self.ttl_s),
            "Status": verdict.status,
        }
        if self.deregister_critical_after_s is not None:
            check["DeregisterCriticalServiceAfter"] = _milliseconds(self.deregister_critical_after_s)
        service: dict[str, Any] = {
            "ID": self.id,
            "Name": self.name,
            "Port": self.port,
            "Tags": list(self.tags),
            "Meta": dict(self.meta),
            "Weights": {"Passing": self.passing_weight, "Warning": self.warning_weight},
            "Check": check,
        }
        if self.address:
            service["Address"] = self.address
        return service


def _milliseconds(seconds: float) -> str:
    """As Go reads a duration."""
    return f"{round(seconds * 1000)}ms"


def define(options: ServiceOptions, bound: Iterable[Address]) -> Definition | None:
    """The service as it is to be known; `bound` are the addresses of its listener. None when there is no port to name yet: the
    listener is not bound."""
    where = next((address for address in bound if address.family != "unix"), None)
    port = options.port if options.port is not None else where.port if where is not None else 0
    if not port:
        return None
    host = options.address
    if host is None:
        # A zone id means something on this machine only.
        host = "" if where is None or where.is_wildcard else where.host.partition("%")[0]
    check = options.check
    return Definition(
        id=options.id or "-".join(filter(None, (options.name, host, str(port)))),
        name=options.name,
        address=host,
        port=port,
        tags=options.tags,
        meta=options.meta,
        passing_weight=options.passing_weight,
        warning_weight=options.warning_weight,
        ttl_s=check.ttl_s,
        deregister_critical_after_s=check.deregister_critical_after_s,
    )


def judge(options: ServiceOptions, reasons: Iterable[str], warnings: Iterable[str]) -> Verdict:
    """What the check says of reasons why we are not ready, and of warnings."""
    against, beside = "; ".join(reasons), "; ".join(warnings)
    if against:
        return Verdict("critical", _cut(against))
    if beside:
        return Verdict(
            "warning" if options.check.on_warning == "warn" else "passing", _cut(f"ready; {beside}")
        )
    return Verdict("passing", "ready")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_OUTPUT else f"{text[: MAX_OUTPUT - 3]}..."
