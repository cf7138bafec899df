"""`type: dns`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lbproxy.config import fields, values
from lbproxy.config.shape import Shape
from lbproxy.config.sources.source import Source
from lbproxy.discovery.dns.options import DnsOptions

_DNS: Final = DnsOptions("")


class Ttl(Shape):
    """The bounds of a time to live: within them, DNS decides when to ask again."""

    min: fields.Duration = Field(default=values.Seconds(_DNS.ttl_min_s), description="At least 250ms")
    max: fields.Duration = Field(default=values.Seconds(_DNS.ttl_max_s), description="At most 1h")

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        if self.min < 0.25:
            raise ValueError("min is at least 250ms")
        if self.max > 3600:
            raise ValueError("max is at most 1h")
        if self.min > self.max:
            raise ValueError("min is above max")
        return self


class DnsSource(Source):
    """Endpoints behind a name."""

    SUBJECT = ("name", "record", "port")

    type: Literal["dns"]
    name: fields.DomainName = Field(description="With a trailing dot: exactly this name")
    record: Literal["a", "aaaa", "both", "srv"] = Field(
        default=_DNS.record, description="both: A and AAAA; srv brings ports, priorities and weights"
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Of every address; srv has its own"
    )
    servers: Annotated[list[fields.NameServer], BeforeValidator(fields.listed)] = Field(
        default=[], description="IP or IP:port; empty: those of /etc/resolv.conf"
    )
    ttl: Ttl = Ttl()
    timeout: fields.Duration = Field(default=values.Seconds(_DNS.timeout_s), description="For one question")

    @model_validator(mode="after")
    def _port_fits_the_record(self) -> Self:
        if self.record == "srv" and self.port is not None:
            raise ValueError("port: SRV records have ports of their own")
        if self.record != "srv" and self.port is None:
            meant = " (did you mean record: srv?)" if self.name.startswith("_") else ""
            raise ValueError(f"record: {self.record} needs a port{meant}")
        return self

    def registry(self) -> Any:
        return DnsOptions(
            self.name,
            self.record,
            self.port,
            tuple(self.servers),
            float(self.ttl.min),
            float(self.ttl.max),
            float(self.timeout),
        )
