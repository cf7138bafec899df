"""`registration`: what of this process is made known in a registry."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from lbproxy.config import fields, values
from lbproxy.config.shape import Shape
from lbproxy.config.sources.consul import AgentAddress
from lbproxy.config.sources.source import Tls
from lbproxy.registration.options import CheckOptions, RegistrationOptions, ServiceOptions
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.tls_options import TlsOptions

_CHECK: Final = CheckOptions()
_SERVICE: Final = ServiceOptions("")
_CONSUL: Final = ConsulAccess()

# What Consul takes for a service's metadata (agent/structs: metaKeyMaxLength, metaValueMaxLength, metaMaxKeyPairs).
_MetaKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
_MetaValue = Annotated[str, Field(max_length=512)]
_Tag = Annotated[str, Field(min_length=1, max_length=255)]
_Weight = Annotated[int, Field(ge=0, le=65535)]


class Weights(Shape):
    """How much work the service wants, for those who look at it."""

    passing: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=_SERVICE.passing_weight, description="While the check passes"
    )
    warning: _Weight = Field(default=_SERVICE.warning_weight, description="While the check warns")


class Check(Shape):
    """The check that says what readiness says."""

    ttl: fields.CheckTtl = Field(
        default=values.Seconds(_CHECK.ttl_s), description="Without news from us for this long, it is critical"
    )
    deregister_critical_after: fields.ForgetAfter | None = Field(
        default=fields.or_none(_CHECK.deregister_critical_after_s),
        description="Critical for this long, the agent forgets the service; at least 1m; null: never",
    )
    on_warning: Literal["pass", "warn"] = Field(
        default=_CHECK.on_warning, description="What the check says while we are ready with warnings"
    )


class Service(Shape):
    """One service."""

    name: fields.ServiceName = Field(description="What others look for")
    id: fields.ServiceId = Field(default=None, description="auto: from name, host and port")
    listener: str | None = Field(default=None, description="Whose address is registered")
    address: fields.AdvertisedHost | None = Field(
        default=None,
        description="IP or host name; null: the listener's, or the node's where that binds every address",
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="null: the listener's"
    )
    ready_when: Literal["process", "upstream"] = Field(
        default=_SERVICE.ready_when,
        description="process: as /readyz says; upstream: the listener's own upstream has a usable endpoint",
    )
    tags: Annotated[list[_Tag], Field(max_length=64)] = Field(default=[], description="For those who look")
    meta: Annotated[dict[_MetaKey, _MetaValue], Field(max_length=64)] = Field(
        default={}, description="For those who look: any text"
    )
    weights: Weights = Weights()
    check: Check = Check()

    @model_validator(mode="after")
    def _has_a_place(self) -> Service:
        if self.listener is None and self.port is None:
            raise ValueError("name a listener, or a port")
        if self.listener is None and self.ready_when == "upstream":
            raise ValueError("ready_when: upstream needs a listener")
        return self

    def options(self) -> ServiceOptions:
        check = self.check
        after = check.deregister_critical_after
        return ServiceOptions(
            name=self.name,
            id=self.id,
            listener=self.listener,
            address=self.address,
            port=self.port,
            ready_when=self.ready_when,
            tags=tuple(self.tags),
            meta=MappingProxyType(dict(self.meta)),
            passing_weight=self.weights.passing,
            warning_weight=self.weights.warning,
            check=CheckOptions(float(check.ttl), None if after is None else float(after), check.on_warning),
        )


class Registration(Shape):
    """Make this process known, and the services it fronts."""

    type: Literal["consul"] = "consul"
    address: AgentAddress = Field(
        default=_CONSUL.address, description="The agent of this machine: http://, https:// or unix:/path"
    )
    token: fields.SecretText = Field(default=None, description="Needs service:write for each name")
    tls: Tls | None = Field(default=None, description="For https")
    namespace: fields.ConsulName | None = Field(default=None, description="Consul Enterprise")
    partition: fields.ConsulName | None = Field(default=None, description="Consul Enterprise")
    services: Annotated[list[Service], Field(min_length=1)] = Field(description="At least one")

    @model_validator(mode="after")
    def _fits_together(self) -> Registration:
        if self.tls is not None and not self.address.startswith("https:"):
            raise ValueError("tls belongs to an https:// address")
        return self

    def options(self) -> RegistrationOptions:
        return RegistrationOptions(
            tuple(service.options() for service in self.services),
            ConsulAccess(
                address=self.address,
                token=self.token,
                tls=TlsOptions() if self.tls is None else self.tls.options(),
                namespace=self.namespace,
                partition=self.partition,
            ),
        )
