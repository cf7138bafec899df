"""The configuration's shape as users write it: keys, types, bounds. Defaults come from the options they end up in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.admin.options import AdminOptions
from lbproxy.config import values
from lbproxy.config.options import LogOptions, RuntimeOptions, Share
from lbproxy.domain.address import Address, HostName
from lbproxy.domain.membership import MAX_WEIGHT
from lbproxy.metrics.options import MetricsOptions
from lbproxy.proxy.options import ConnectOptions, ListenerOptions, Network, TcpOptions, Timeouts
from lbproxy.wire.secrets import Secret

_RUNTIME: Final = RuntimeOptions()
_ADMIN: Final = AdminOptions()
_LOG: Final = LogOptions()
_ACCESS: Final = AccessLogOptions()
_METRICS: Final = MetricsOptions()
_LISTENER: Final = ListenerOptions("", (), "")
_TIMEOUTS: Final = Timeouts()
_TCP: Final = TcpOptions()
_CONNECT: Final = ConnectOptions()

DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"


def _text(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


_as_text = PlainSerializer(str)
Duration = Annotated[
    float,
    PlainValidator(values.positive_duration),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "5s"),
]
DurationOrZero = Annotated[
    float,
    PlainValidator(values.duration),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "0s"),
]
Size = Annotated[
    int,
    PlainValidator(values.size),
    PlainSerializer(values.format_size),
    _text(r"^[0-9]+(B|[KMG]iB|[kKMG]B)$", "64KiB"),
]
Bind = Annotated[Address, PlainValidator(values.address), _as_text, _text(r".+", "0.0.0.0:8080")]
Target = Annotated[Address | HostName, PlainValidator(values.target), _as_text, _text(r".+", "10.0.0.11:80")]
SourceIp = Annotated[str, PlainValidator(values.source_ip), _text(r"^[0-9a-fA-F.:]+$", "10.0.0.5")]
Cidr = Annotated[Network, PlainValidator(values.network), _as_text, _text(r"^[0-9a-fA-F.:/]+$", "10.0.0.0/8")]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]


def _or_none(seconds: float | None) -> values.Seconds | None:
    return None if seconds is None else values.Seconds(seconds)


def _listed(given: object) -> object:
    """A single value stands for a list of one."""
    return given if isinstance(given, list) else [given]


def _endpoint(given: object) -> object:
    return {"address": given} if isinstance(given, str) else given


def _strategy(given: object) -> object:
    return {"type": given} if isinstance(given, str) else given


def _max_connections(given: object) -> int | Share | None:
    if given == "auto":
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= 10_000_000:
            raise ValueError(f"expected auto, a percentage, or a number from 1 to 10000000, got {given}")
        return given
    if isinstance(given, str) and given.endswith("%"):
        return Share(values.percentage(given))
    raise ValueError(f"expected auto, a number, or a percentage such as 80%, got {values.shown(given)}")


def _show_max_connections(value: int | Share | None) -> int | str:
    if value is None:
        return "auto"
    return f"{value.fraction * 100:g}%" if isinstance(value, Share) else value


def _threads(given: object) -> int | None:
    if given == "auto":
        return None
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= 256:
        return given
    raise ValueError(f"expected auto or a number from 1 to 256, got {values.shown(given)}")


def _shown_endpoints(given: object) -> object:
    if given in {"all", "none"} or (isinstance(given, int) and not isinstance(given, bool) and given >= 1):
        return given
    raise ValueError(f"expected all, none or a number of at least 1, got {values.shown(given)}")


def _state_dir(given: object) -> Path | Literal["auto"] | None:
    if given is None or given == "auto":
        return given
    return Path(values.text(given))


def _show_state_dir(value: Path | str | None) -> str | None:
    return None if value is None else str(value)


def _secret(given: object) -> Secret | None:
    """The value never appears in an error."""
    if given is None:
        return None
    if isinstance(given, dict):
        if set(given) != {"file"} or not isinstance(given["file"], str) or not given["file"]:
            raise ValueError("expected {file: PATH} or ${VARIABLE}")
        return Secret(path=Path(given["file"]))
    if isinstance(given, str):
        if not given:
            raise ValueError("the secret is empty")
        return Secret(value=given)
    raise ValueError("expected {file: PATH} or ${VARIABLE}")


def _show_secret(secret: Secret | None) -> dict[str, str] | str | None:
    if secret is None:
        return None
    return {"file": str(secret.path)} if secret.path is not None else "***"


SecretText = Annotated[
    Secret | None,
    PlainValidator(_secret),
    PlainSerializer(_show_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "description": "${VARIABLE}; a literal only with runtime.allow_literal_secrets",
                },
                {
                    "type": "object",
                    "properties": {"file": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        }
    ),
]


class Shape(BaseModel):
    """Unknown keys are errors; text is not read as a number, nor a number as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


class Runtime(Shape):
    """The process. Read once at start: a change needs a restart."""

    event_loop: Literal["auto", "uvloop", "asyncio"] = Field(
        default=_RUNTIME.event_loop, description="auto: uvloop where installed"
    )
    relay: Literal["auto", "native", "asyncio"] = Field(
        default=_RUNTIME.relay.kind, description="What moves the bytes; auto: the best there is"
    )
    relay_threads: Annotated[
        int | None,
        PlainValidator(_threads),
        PlainSerializer(lambda value: "auto" if value is None else value),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]}),
    ] = Field(
        default=None, description="Threads of the native relay; auto: one a CPU. The asyncio relay has none"
    )
    offload: Literal["off"] = Field(
        default=_RUNTIME.offload, description="Kernel offload; this version has none"
    )
    max_connections: Annotated[
        int | Share | None,
        PlainValidator(_max_connections),
        PlainSerializer(_show_max_connections),
        WithJsonSchema(
            {
                "anyOf": [
                    {"const": "auto"},
                    {"type": "integer", "minimum": 1},
                    {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"},
                ]
            }
        ),
    ] = Field(
        default=None,
        description="Sessions of the process. auto: from RLIMIT_NOFILE and memory; N%: that part of it",
    )
    drain_delay: DurationOrZero = Field(
        default=values.Seconds(_RUNTIME.drain_delay_s),
        description="Not ready for this long before listeners close",
    )
    drain_timeout: DurationOrZero = Field(
        default=values.Seconds(_RUNTIME.drain_timeout_s),
        description="Sessions may end by themselves for this long",
    )
    state_dir: Annotated[
        Path | Literal["auto"] | None,
        PlainValidator(_state_dir),
        PlainSerializer(_show_state_dir),
        WithJsonSchema({"type": ["string", "null"]}),
    ] = Field(default="auto", description="Where what was last known is kept; auto: $STATE_DIRECTORY, if set")
    allow_literal_secrets: bool = Field(
        default=_RUNTIME.allow_literal_secrets, description="Let secrets stand in the file itself"
    )


class Admin(Shape):
    """The admin interface."""

    bind: Bind = Field(
        default=_ADMIN.bind,
        description="host:port or unix:/path (made 0600); beyond loopback it needs a token",
    )
    token: SecretText = Field(default=None, description="Bearer token for everything but metrics and health")
    metrics_bind: Bind | None = Field(
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

    endpoints: Annotated[
        Literal["all", "none"] | int,
        PlainValidator(_shown_endpoints),
        WithJsonSchema({"anyOf": [{"enum": ["all", "none"]}, {"type": "integer", "minimum": 1}]}),
    ] = Field(
        default=_METRICS.endpoints,
        description="Endpoints with series of their own: all, none, or the N busiest of each upstream",
    )


class ListenerTimeouts(Shape):
    """null: no limit."""

    idle: Duration | None = Field(
        default=_or_none(_TIMEOUTS.idle_s), description="Without a byte in either direction"
    )
    half_close: Duration | None = Field(
        default=_or_none(_TIMEOUTS.half_close_s), description="Without a byte, once one side has finished"
    )
    max_duration: Duration | None = Field(default=_or_none(_TIMEOUTS.max_duration_s), description="In total")
    handshake: Duration | None = Field(
        default=_or_none(_TIMEOUTS.handshake_s),
        description="For what must be read before routing; a plain TCP listener reads nothing",
    )


class Tcp(Shape):
    """Socket options of both legs; null: the kernel's own."""

    keepalive: Duration | None = Field(
        default=_or_none(_TCP.keepalive_s), description="Idle time before the first probe; at least 1s"
    )
    user_timeout: Duration | None = Field(
        default=None, description="TCP_USER_TIMEOUT; cuts a live reader that pauses"
    )
    receive_buffer: Size | None = Field(default=None, description="SO_RCVBUF")
    send_buffer: Size | None = Field(default=None, description="SO_SNDBUF")
    notsent_lowat: Size | None = Field(default=None, description="TCP_NOTSENT_LOWAT")


class Listener(Shape):
    """Where connections come in."""

    bind: Annotated[
        list[Bind],
        BeforeValidator(_listed),
        Field(min_length=1),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        ),
    ] = Field(description="host:port, [::]:port, unix:/path, unix:@name, or a list of them")
    upstream: str = Field(description="The upstream that serves it")
    max_connections: Count = Field(
        default=_LISTENER.max_connections, description="At this many it stops accepting: the kernel queues"
    )
    backlog: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=_LISTENER.backlog, description="Accept queue, capped by net.core.somaxconn"
    )
    allow: list[Cidr] = Field(default=[], description="CIDRs that may come in; empty: all")
    deny: list[Cidr] = Field(default=[], description="CIDRs that may not; asked before allow")
    on_failure: Literal["reset", "close"] = Field(
        default=_LISTENER.on_failure, description="How a client is told that nobody could serve it"
    )
    timeouts: ListenerTimeouts = ListenerTimeouts()
    tcp: Tcp = Tcp()


class Endpoint(Shape):
    """One endpoint; a host name stands for every address it resolves to."""

    address: Target = Field(description="host:port or unix:/path")
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = Field(default=1, description="0: no new sessions")
    zone: str | None = Field(default=None, max_length=255)
    priority: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="0 is asked first; the next when nothing is left"
    )
    max_connections: Count | None = Field(default=None, description="Sessions at once; null: no limit")
    metadata: dict[str, str] = Field(default={}, description="For people and routes: any text")


class Strategy(Shape):
    """How endpoints are chosen."""

    type: Literal["round_robin", "least_connection", "random"] = "round_robin"
    choices: Annotated[
        int | Literal["all"],
        WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1, "maximum": 100}]}),
    ] = Field(default="all", description="least_connection: look at all, or at N weighted draws")

    @model_validator(mode="after")
    def _choices_belong_to_least_connection(self) -> Strategy:
        if self.choices != "all" and self.type != "least_connection":
            raise ValueError("choices belongs to least_connection")
        if isinstance(self.choices, int) and not 1 <= self.choices <= 100:
            raise ValueError("choices: expected all or a number from 1 to 100")
        return self


class Connect(Shape):
    """How an upstream is dialled."""

    timeout: Duration = Field(default=values.Seconds(_CONNECT.timeout_s), description="For one dial")
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=_CONNECT.attempts, description="Dials a session, each to another endpoint while there is one"
    )
    budget: Duration = Field(
        default=values.Seconds(_CONNECT.budget_s), description="For all dials of a session together"
    )
    source: SourceIp | None = Field(default=None, description="Local address to dial from")
    mark: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = Field(
        default=None, description="SO_MARK, for firewall rules to skip; needs CAP_NET_ADMIN"
    )


class Upstream(Shape):
    """Who serves the connections."""

    type: Literal["endpoints", "original_dst"] = Field(
        default="endpoints", description="original_dst dials the address the client meant"
    )
    strategy: Annotated[Strategy, BeforeValidator(_strategy)] = Field(
        default=Strategy(), description="A name, or {type: NAME, options...}"
    )
    endpoints: list[Annotated[Endpoint, BeforeValidator(_endpoint)]] = Field(
        default=[], description="host:port, or a mapping"
    )
    connect: Connect = Connect()


class File(Shape):
    """lbproxy's configuration."""

    runtime: Runtime = Runtime()
    admin: Admin = Admin()
    log: Log = Log()
    metrics: Metrics = Metrics()
    listeners: dict[Name, Listener] = Field(description="By name")
    upstreams: dict[Name, Upstream] = Field(default={}, description="By name")


def dump(file: File) -> dict[str, Any]:
    """The whole configuration with every default, as plain JSON; secrets redacted."""
    return file.model_dump(mode="json")
