"""The kinds of values a configuration holds: how each is read, shown again, and described in the schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, GetJsonSchemaHandler, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema

from lbproxy.config import values
from lbproxy.config.options import Share
from lbproxy.domain.address import Address, HostName
from lbproxy.proxy.options import Network
from lbproxy.relay.options import MAX_THREADS
from lbproxy.wire.secrets import Secret
from lbproxy.wire.urls import redacted_url

DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_SERVICE_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


def _text(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


_as_text = PlainSerializer(str)
Duration = Annotated[
    float,
    PlainValidator(values.positive_duration),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "5s"),
]
Keepalive = Annotated[
    float,
    PlainValidator(values.keepalive),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "60s"),
]
UserTimeout = Annotated[
    float,
    PlainValidator(values.user_timeout),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "30s"),
]
DurationOrZero = Annotated[
    float,
    PlainValidator(values.duration),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "0s"),
]
CheckTtl = Annotated[
    float,
    PlainValidator(values.check_ttl),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "15s"),
]
ForgetAfter = Annotated[
    float,
    PlainValidator(values.forget_after),
    PlainSerializer(values.format_duration),
    _text(DURATION_PATTERN, "10m"),
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
NameServer = Annotated[
    tuple[str, int],
    PlainValidator(values.name_server),
    PlainSerializer(values.format_name_server),
    _text(r"^[0-9a-fA-F.:\[\]]+$", "127.0.0.1:5353"),
]
DomainName = Annotated[
    str, PlainValidator(values.domain_name), _text(r"^[A-Za-z0-9_.-]+$", "_http._tcp.web.example.")
]
Cidr = Annotated[Network, PlainValidator(values.network), _as_text, _text(r"^[0-9a-fA-F.:/]+$", "10.0.0.0/8")]
AdvertisedHost = Annotated[str, PlainValidator(values.advertised_host), _text(r"^[^/\s]+$", "10.0.0.5")]
FileName = Annotated[str, PlainValidator(values.file_name), _text(r".+", "/etc/lbproxy/file")]
Url = Annotated[
    str,
    PlainValidator(values.url),
    PlainSerializer(redacted_url),
    _text(r"^https?://.+", "http://127.0.0.1:8500"),
]
Percentage = Annotated[
    float,
    PlainValidator(values.percentage),
    PlainSerializer(lambda value: str(values.Part(value))),
    _text(r"^[0-9]+(\.[0-9]+)?%$", "50%"),
]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
# Namespaces and partitions of Consul Enterprise.
ConsulName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$")]
# Consul takes any text; what its DNS interface and its URLs cannot name is left out.
ServiceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?$")]


@dataclass(frozen=True)
class OrText:
    """Tells editors of the short form beside the mapping."""

    short: dict[str, Any]

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [self.short, handler(core_schema)]}


@dataclass(frozen=True)
class OrOneItem:
    """Tells editors that a single item stands for a list of one."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        made = handler(core_schema)
        items = next(each["items"] for each in made["anyOf"] if each.get("type") == "array")
        return {"anyOf": [items, *made["anyOf"]]}


def or_none(seconds: float | None) -> values.Seconds | None:
    """A default of the options as it stands in the file."""
    return None if seconds is None else values.Seconds(seconds)


def listed(given: object) -> object:
    """A single value stands for a list of one."""
    return given if isinstance(given, list) else [given]


def listed_or_none(given: object) -> object:
    """As `listed`, where nothing may stay nothing."""
    return None if given is None else listed(given)


def endpoint(given: object) -> object:
    """An address alone stands for an endpoint with nothing but an address."""
    if isinstance(given, str):
        return {"address": given}
    if not isinstance(given, dict):
        raise ValueError(f"expected host:port, or a mapping with an address, got {values.shown(given)}")  # noqa: TRY004 - pydantic takes ValueError
    return given


def strategy(given: object) -> object:
    """A name alone stands for a strategy without options."""
    if isinstance(given, str):
        return {"type": given}
    if not isinstance(given, dict):
        raise ValueError(f"expected a name, or a mapping with a type, got {values.shown(given)}")  # noqa: TRY004 - pydantic takes ValueError
    return given


def choices(given: object) -> int | Literal["all"]:
    """How many endpoints least_connection looks at. Raises ValueError."""
    if given == "all" or (isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= 100):
        return given
    raise ValueError(f"expected all or a number from 1 to 100, got {values.shown(given)}")


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
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_THREADS:
        return given
    raise ValueError(f"expected auto or a number from 1 to {MAX_THREADS}, got {values.shown(given)}")


def _shown_endpoints(given: object) -> object:
    if isinstance(given, str) and given in {"all", "none"}:
        return given
    if isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        return given
    raise ValueError(f"expected all, none or a number of at least 1, got {values.shown(given)}")


def _state_dir(given: object) -> Path | Literal["auto"] | None:
    if given is None or given == "auto":
        return given
    return Path(values.file_name(given))


def _show_state_dir(value: Path | str | None) -> str | None:
    return None if value is None else str(value)


def _service_id(given: object) -> str | None:
    if given == "auto":
        return None
    if not isinstance(given, str) or not _SERVICE_ID.fullmatch(given):
        raise ValueError(
            f"expected auto, or up to 255 of letters, digits and '_', '.', ':', '-', got {values.shown(given)}"
        )
    return given


def _secret(given: object) -> Secret | None:
    """The value never appears in an error."""
    if given is None:
        return None
    if isinstance(given, dict):
        if set(given) != {"file"} or not isinstance(given["file"], str) or not given["file"]:
            raise ValueError("expected {file: PATH} or ${VARIABLE}")
        return Secret(path=Path(values.file_name(given["file"])))
    if isinstance(given, str):
        if not given.strip():
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


Threads = Annotated[
    int | None,
    PlainValidator(_threads),
    PlainSerializer(lambda value: "auto" if value is None else value),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_THREADS}]}),
]

StateDir = Annotated[
    Path | Literal["auto"] | None,
    PlainValidator(_state_dir),
    PlainSerializer(_show_state_dir),
    WithJsonSchema({"type": ["string", "null"]}),
]

MaxConnections = Annotated[
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
]

ShownEndpoints = Annotated[
    Literal["all", "none"] | int,
    PlainValidator(_shown_endpoints),
    WithJsonSchema({"anyOf": [{"enum": ["all", "none"]}, {"type": "integer", "minimum": 1}]}),
]

ServiceId = Annotated[
    str | None,
    PlainValidator(_service_id),
    PlainSerializer(lambda value: "auto" if value is None else value),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,255}$", "default": "auto"}),
]
