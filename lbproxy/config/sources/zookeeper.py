"""`type: zookeeper`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from lbproxy.config import fields, values
from lbproxy.config.shape import Shape
from lbproxy.config.sources.source import Source, Tls
from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.domain.address import AddressError, parse_target

_ZOOKEEPER: Final = ZooKeeperOptions((), "")
_LEAST_TIMEOUT_S: Final = 1.0
_MOST_TIMEOUT_S: Final = 60.0


class Digest(Shape):
    """Who we are, by ZooKeeper's scheme `digest`."""

    user: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^:]+$")]
    password: fields.SecretText = Field(description="{file: PATH} or ${VARIABLE}")


class ZooKeeperSource(Source):
    """Endpoints as ephemeral children of a node in ZooKeeper."""

    SUBJECT = ("path",)

    type: Literal["zookeeper"]
    hosts: Annotated[
        list[str],
        BeforeValidator(fields.listed),
        Field(min_length=1, max_length=64),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        ),
    ] = Field(description="host:port, or a list of them")
    path: str = Field(description="The node whose children are the endpoints", min_length=1, max_length=1024)
    auth: Digest | None = Field(default=None, description="By the scheme digest; null: nobody")
    session_timeout: fields.Duration = Field(
        default=values.Seconds(_ZOOKEEPER.session_timeout_s),
        description="How long a session lasts without a connection; from 1s to 60s",
    )
    tls: Tls | None = Field(default=None, description="null: without TLS")

    @field_validator("hosts")
    @classmethod
    def _hosts_have_ports(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            try:
                target = parse_target(host)
            except AddressError as error:
                raise ValueError(str(error)) from error
            if target.port == 0:
                raise ValueError(f"expected host:port, got {values.shown(host)}")
        return hosts

    @field_validator("path")
    @classmethod
    def _path_is_a_node(cls, path: str) -> str:
        if not path.startswith("/") or any(part in {"", ".", ".."} for part in path[1:].split("/")):
            raise ValueError(f"expected a node such as /services/web, got {values.shown(path)}")
        return path

    @field_validator("session_timeout")
    @classmethod
    def _a_session_lasts(cls, timeout: float) -> float:
        if not _LEAST_TIMEOUT_S <= timeout <= _MOST_TIMEOUT_S:
            raise ValueError("expected 1s to 60s")
        return timeout

    @model_validator(mode="after")
    def _kazoo_is_there(self) -> ZooKeeperSource:
        if find_spec("kazoo") is None:  # looks for it, and loads nothing
            raise ValueError("needs the extra `zookeeper`: pip install 'lbproxy[zookeeper]'")
        return self

    def registry(self) -> ZooKeeperOptions:
        auth = self.auth
        return ZooKeeperOptions(
            tuple(self.hosts),
            self.path,
            float(self.session_timeout),
            "" if auth is None else auth.user,
            None if auth is None else auth.password,
            None if self.tls is None else self.tls.options(),
        )
