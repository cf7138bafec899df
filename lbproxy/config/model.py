"""The configuration's shape as users write it: keys, types, bounds. Defaults come from the options they end up in."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.admin.options import AdminOptions
from lbproxy.config import fields, values
from lbproxy.config.options import LogOptions, RuntimeOptions
from lbproxy.config.registration import Registration
from lbproxy.config.shape import Shape
from lbproxy.config.sources.kinds import AnySource
from lbproxy.domain.membership import MAX_WEIGHT
from lbproxy.metrics.options import MetricsOptions
from lbproxy.proxy.options import ConnectOptions, ListenerOptions, TcpOptions, Timeouts

_RUNTIME: Final = RuntimeOptions()
_ADMIN: Final = AdminOptions()
_LOG: Final = LogOptions()
_ACCESS: Final = AccessLogOptions()
_METRICS: Final = MetricsOptions()
_LISTENER: Final = ListenerOptions("", (), "")
_TIMEOUTS: Final = Timeouts()
_TCP: Final = TcpOptions()
_CONNECT: Final = ConnectOptions()


class Runtime(Shape):
    """The process. Read once at start: a change needs a restart."""

    event_loop: Literal["auto", "uvloop", "asyncio"] = Field(
        default=_RUNTIME.event_loop, description="auto: uvloop where installed"
    )
    relay: Literal["auto", "native", "asyncio"] = Field(
        default=_RUNTIME.relay.kind, description="What moves the bytes; auto: the best there is"
    )
    relay_threads: fields.Threads = Field(
        default=None,
        description="Threads of the native relay; auto: one a CPU. The asyncio relay has none",
    )
    offload: Literal["off"] = Field(
        default=_RUNTIME.offload, description="Kernel offload; this version has none"
    )
    max_connections: fields.MaxConnections = Field(
        default=None,
        description="Sessions of the process. auto: from RLIMIT_NOFILE and memory; N%: that part of it",
    )
    drain_delay: fields.DurationOrZero = Field(
        default=values.Seconds(_RUNTIME.drain_delay_s),
        description="Not ready for this long before listeners close",
    )
    drain_timeout: fields.DurationOrZero = Field(
        default=values.Seconds(_RUNTIME.drain_timeout_s),
        description="Sessions may end by themselves for this long",
    )
    state_dir: fields.StateDir = Field(
        default="auto", description="Where what was last known is kept; auto: $STATE_DIRECTORY, if set"
    )
    allow_literal_secrets: bool = Field(
        default=_RUNTIME.allow_literal_secrets, description="Let secrets stand in the file itself"
    )


class Admin(Shape):
    """The admin interface."""

    bind: fields.Bind = Field(
        default=_ADMIN.bind,
        description="host:port or unix:/path (made 0600); beyond loopback it needs a token",
    )
    token: fields.SecretText = Field(
        default=None, description="Bearer token for everything but metrics and health"
    )
    metrics_bind: fields.Bind | None = Field(
        default=None, description="Serve /metrics, /healthz and /readyz here, too, without a token"
    )


class Access(Shape):
    """The access log."""

    enabled: bool = _ACCESS.enabled
    events: list[Literal["end"]] = Field(
        default=list(_ACCESS.events), description="When a record is written", min_length=1
    )
    skip_empty: bool = Field(default=_ACCESS.skip_empty, description="Leave out sessions without a byte")


class Log(Shape):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = _LOG.level
    format: Literal["auto", "json", "text"] = Field(
        default=_LOG.format, description="auto: JSON unless stderr is a terminal"
    )
    access: Access = Access()


class Metrics(Shape):
    """The metrics page."""

    endpoints: fields.ShownEndpoints = Field(
        default=_METRICS.endpoints,
        description="Endpoints with series of their own: all, none, or the N busiest of each upstream",
    )


class ListenerTimeouts(Shape):
    """null: no limit."""

    idle: fields.Duration | None = Field(
        default=fields.or_none(_TIMEOUTS.idle_s), description="Without a byte in either direction"
    )
    half_close: fields.Duration | None = Field(
        default=fields.or_none(_TIMEOUTS.half_close_s),
        description="Without a byte, once one side has finished",
    )
    max_duration: fields.Duration | None = Field(
        default=fields.or_none(_TIMEOUTS.max_duration_s), description="In total"
    )
    handshake: fields.Duration | None = Field(
        default=fields.or_none(_TIMEOUTS.handshake_s),
        description="For what must be read before routing; a plain TCP listener reads nothing",
    )


class Tcp(Shape):
    """Socket options of both legs; null: the kernel's own."""

    keepalive: fields.Keepalive | None = Field(
        default=fields.or_none(_TCP.keepalive_s), description="Idle time before the first probe; at least 1s"
    )
    user_timeout: fields.UserTimeout | None = Field(
        default=None, description="TCP_USER_TIMEOUT; cuts a live reader that pauses"
    )
    receive_buffer: fields.Size | None = Field(default=None, description="SO_RCVBUF")
    send_buffer: fields.Size | None = Field(default=None, description="SO_SNDBUF")
    notsent_lowat: fields.Size | None = Field(default=None, description="TCP_NOTSENT_LOWAT")


class Listener(Shape):
    """Where connections come in."""

    bind: Annotated[
        list[fields.Bind],
        BeforeValidator(fields.listed),
        Field(min_length=1),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        ),
    ] = Field(description="host:port, [::]:port, unix:/path, unix:@name, or a list of them")
    upstream: str = Field(description="The upstream that serves it")
    max_connections: fields.Count = Field(
        default=_LISTENER.max_connections, description="At this many it stops accepting: the kernel queues"
    )
    backlog: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=_LISTENER.backlog, description="Accept queue, capped by net.core.somaxconn"
    )
    allow: list[fields.Cidr] = Field(default=[], description="CIDRs that may come in; empty: all")
    deny: list[fields.Cidr] = Field(default=[], description="CIDRs that may not; asked before allow")
    on_failure: Literal["reset", "close"] = Field(
        default=_LISTENER.on_failure, description="How a client is told that nobody could serve it"
    )
    timeouts: ListenerTimeouts = ListenerTimeouts()
    tcp: Tcp = Tcp()


class Endpoint(Shape):
    """One endpoint; a host name stands for every address it resolves to."""

    address: fields.Target = Field(description="host:port or unix:/path")
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = Field(default=1, description="0: no new sessions")
    zone: str | None = Field(default=None, max_length=255)
    priority: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="0 is asked first; the next when nothing is left"
    )
    max_connections: fields.Count | None = Field(default=None, description="Sessions at once; null: no limit")
    metadata: dict[str, str] = Field(default={}, description="For people and routes: any text")


class Strategy(Shape):
    """How endpoints are chosen."""

    type: Literal["round_robin", "least_connection", "random"] = "round_robin"
    choices: Annotated[
        int | Literal["all"],
        PlainValidator(fields.choices),
        WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1, "maximum": 100}]}),
    ] = Field(default="all", description="least_connection: look at all, or at N weighted draws")

    @model_validator(mode="after")
    def _choices_belong_to_least_connection(self) -> Strategy:
        if self.choices != "all" and self.type != "least_connection":
            raise ValueError("choices belongs to least_connection")
        return self


class Connect(Shape):
    """How an upstream is dialled."""

    timeout: fields.Duration = Field(default=values.Seconds(_CONNECT.timeout_s), description="For one dial")
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=_CONNECT.attempts, description="Dials a session, each to another endpoint while there is one"
    )
    budget: fields.Duration = Field(
        default=values.Seconds(_CONNECT.budget_s), description="For all dials of a session together"
    )
    source: fields.SourceIp | None = Field(default=None, description="Local address to dial from")
    mark: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="SO_MARK, for firewall rules to skip; needs CAP_NET_ADMIN"
    )


class Upstream(Shape):
    """Who serves the connections."""

    type: Literal["endpoints", "original_dst"] = Field(
        default="endpoints", description="original_dst dials the address the client meant"
    )
    strategy: Annotated[
        Strategy,
        BeforeValidator(fields.strategy),
        fields.OrText({"enum": ["round_robin", "least_connection", "random"]}),
    ] = Field(default=Strategy(), description="A name, or {type: NAME, options...}")
    endpoints: list[
        Annotated[
            Endpoint,
            BeforeValidator(fields.endpoint),
            fields.OrText({"type": "string", "examples": ["10.0.0.11:80"]}),
        ]
    ] = Field(default=[], description="host:port, or a mapping")
    discovery: Annotated[
        Annotated[list[AnySource], Field(min_length=1)] | None,
        BeforeValidator(fields.listed_or_none),
        fields.OrOneItem(),
    ] = Field(
        default=None,
        description="A source of endpoints, or a list of them; the first that names an address says what holds",
    )
    removal_deadline: fields.DurationOrZero | None = Field(
        default=None,
        description="Sessions of an endpoint that its source no longer names are closed after this; null: they stay",
    )
    connect: Connect = Connect()


class File(Shape):
    """lbproxy's configuration."""

    runtime: Runtime = Runtime()
    admin: Admin = Admin()
    log: Log = Log()
    metrics: Metrics = Metrics()
    registration: Registration | None = Field(
        default=None, description="Where this process makes itself known; null: nowhere"
    )
    listeners: dict[fields.Name, Listener] = Field(description="By name")
    upstreams: dict[fields.Name, Upstream] = Field(default={}, description="By name")


def dump(file: File) -> dict[str, Any]:
    """The whole configuration with every default, as plain JSON; secrets redacted."""
    return file.model_dump(mode="json")
