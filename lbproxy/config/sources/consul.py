"""`type: consul`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source, Tls
from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.urls import redacted_url

_CONSUL: Final = ConsulOptions()
_ACCESS: Final = ConsulAccess()
_LONGEST_WAIT_S: Final = 600.0  # Consul's own bound
_LONGEST_NAME: Final = 255


def agent_address(given: object) -> str:
    """`http://host:port`, `https://host:port` or `unix:/path`. Raises ValueError."""
    written = values.text(given)
    if not written.startswith("unix:"):
        if "?" in written or "#" in written:
            raise ValueError("the agent's address has no query and no fragment")
        if "://" not in written:
            raise ValueError(
                f"expected http://host, https://host or unix:/path, got {values.shown(redacted_url(written))}"
            )
        return values.url(given)
    if not written.startswith("unix:/"):
        raise ValueError(f"expected unix:/path, got {values.shown(given)}")
    return "unix:" + values.file_name(written.removeprefix("unix:"))


def _wait(given: object) -> values.Seconds:
    found = values.positive_duration(given)
    if not 1 <= found <= _LONGEST_WAIT_S:
        raise ValueError(f"{values.shown(given)} is out of range: 1s to 10m")
    return found


AgentAddress = Annotated[
    str,
    PlainValidator(agent_address),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(https?://.+|unix:/.+)", "examples": ["http://127.0.0.1:8500"]}
    ),
]
Wait = Annotated[
    float,
    PlainValidator(_wait),
    PlainSerializer(values.format_duration),
    WithJsonSchema({"type": "string", "pattern": fields.DURATION_PATTERN, "examples": ["55s"]}),
]
Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
Unwell = Literal["drain", "remove", "use"]


class ConsulSource(Source):
    """A service in Consul, or a prepared query."""

    SUBJECT = ("service", "query", "tags", "filter", "address_from", "datacenter", "namespace", "partition")

    type: Literal["consul"]
    address: AgentAddress = Field(
        default=_ACCESS.address, description="The agent: http://, https:// or unix:/path"
    )
    service: Text | None = Field(default=None, description="The service to watch; or `query`")
    query: Text | None = Field(
        default=None, description="Name or id of a prepared query, asked every `interval`; or `service`"
    )
    tags: Annotated[list[Text], BeforeValidator(fields.listed)] = Field(
        default=[], description="Only instances with all of these"
    )
    filter: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None, description="Only instances that fit this expression of Consul's"
    )
    near: Text | None = Field(
        default=None, description="Instances near this node come first; _agent: near the agent"
    )
    address_from: Text = Field(
        default=_CONSUL.address_from,
        description="service: the address registered; or a tagged address such as lan, wan, wan_ipv6",
    )
    critical: Unwell = Field(
        default=_CONSUL.critical,
        description="With an instance whose checks are critical: drain (weight 0), remove, or use it all the same",
    )
    warning: Unwell = Field(
        default=_CONSUL.warning, description="With one that has a warning; use: with its weight for that"
    )
    consistency: Literal["default", "stale", "consistent"] = Field(
        default=_CONSUL.consistency, description="Of reads"
    )
    max_stale: fields.Duration | None = Field(
        default=None, description="A stale read further behind its leader is asked for again, of the leader"
    )
    wait: Wait = Field(
        default=values.Seconds(_CONSUL.wait_s), description="For how long a question waits for news"
    )
    interval: fields.Duration | None = Field(
        default=None, description="Between two questions for a prepared query"
    )
    datacenter: Text | None = Field(default=None, description="null: the agent's")
    namespace: Text | None = Field(default=None, description="Consul Enterprise")
    partition: Text | None = Field(default=None, description="Consul Enterprise")
    token: fields.SecretText = Field(
        default=None, description="{file: PATH}, read again when it changes, or ${VARIABLE}"
    )
    tls: Tls | None = Field(default=None, description="For https")

    @model_validator(mode="after")
    def _fits_together(self) -> ConsulSource:
        if (self.service is None) == (self.query is None):
            raise ValueError("either service or query")
        if self.query is not None and (self.tags or self.filter is not None):
            raise ValueError("tags and filter stand in the prepared query itself")
        if any("`" in tag and '"' in tag for tag in self.tags):
            raise ValueError('Consul cannot filter by a tag that holds both a ` and a "')
        if self.query is None and self.interval is not None:
            raise ValueError("interval belongs to query: a service is watched")
        if self.max_stale is not None and self.consistency != "stale":
            raise ValueError("max_stale belongs to consistency: stale")
        if self.tls is not None and not self.address.startswith("https:"):
            raise ValueError("tls belongs to an https:// address")
        return self

    def access(self) -> ConsulAccess:
        return ConsulAccess(
            self.address,
            self.token,
            _ACCESS.tls if self.tls is None else self.tls.options(),
            self.datacenter,
            self.namespace,
            self.partition,
        )

    def registry(self) -> ConsulOptions:
        return ConsulOptions(
            service=self.service or "",
            query=self.query or "",
            access=self.access(),
            tags=tuple(self.tags),
            filter=self.filter or "",
            near=self.near or "",
            consistency=self.consistency,
            max_stale_s=_CONSUL.max_stale_s if self.max_stale is None else float(self.max_stale),
            wait_s=float(self.wait),
            interval_s=_CONSUL.interval_s if self.interval is None else float(self.interval),
            critical=self.critical,
            warning=self.warning,
            address_from=self.address_from,
        )
