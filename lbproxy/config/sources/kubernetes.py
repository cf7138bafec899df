"""`type: kubernetes`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source, Tls
from lbproxy.discovery.kubernetes.options import Family, KubernetesOptions

_KUBERNETES: Final = KubernetesOptions("")
_LABEL: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"  # RFC 1123, for names of namespaces and services
_PORT_NAME_MOST: Final = 63


def _port(given: object) -> str | int | None:
    if given is None or (isinstance(given, str) and 0 < len(given) <= _PORT_NAME_MOST):
        return given
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= 65535:
        return given
    raise ValueError(f"expected a port's name, or a number from 1 to 65535, got {values.shown(given)}")


class KubernetesSource(Source):
    """The EndpointSlices of a service."""

    SUBJECT = ("service", "namespace", "port", "family")

    type: Literal["kubernetes"]
    service: Annotated[str, Field(pattern=_LABEL)] = Field(description="The service's name")
    namespace: Annotated[str, Field(pattern=_LABEL)] | None = Field(
        default=None, description="null: the pod's own; default where address is given"
    )
    port: Annotated[
        str | int | None,
        PlainValidator(_port),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1, "maxLength": _PORT_NAME_MOST},
                    {"type": "integer", "minimum": 1, "maximum": 65535},
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(default=None, description="Name or number of the endpoints' own port; null: their only one")
    family: Family = Field(
        default=_KUBERNETES.family, description="auto | ipv4 | ipv6; auto: IPv4 where a service has both"
    )
    address: fields.Url | None = Field(
        default=None, description="The API server; null: that of our own cluster"
    )
    token: fields.SecretText = Field(
        default=None, description="null: the pod's own, read again as it rotates"
    )
    timeout: fields.Duration = Field(
        default=values.Seconds(_KUBERNETES.timeout_s), description="For one request, to the end of its answer"
    )
    resync: fields.Duration = Field(
        default=values.Seconds(_KUBERNETES.resync_s),
        description="Everything is read again after this at the latest",
    )
    tls: Tls = Tls()

    @model_validator(mode="after")
    def _fits_together(self) -> KubernetesSource:
        if self.tls != Tls() and self.address is not None and not self.address.startswith("https:"):
            raise ValueError("tls belongs to an https:// address")
        return self

    def registry(self) -> KubernetesOptions:
        return KubernetesOptions(
            self.service,
            self.namespace,
            self.port,
            self.family,
            self.address,
            self.token,
            self.tls.options(),
            float(self.timeout),
            resync_s=float(self.resync),
        )
