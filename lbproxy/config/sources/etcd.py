"""`type: etcd`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source, Tls
from lbproxy.discovery.etcd.options import EtcdOptions

_ETCD: Final = EtcdOptions("")
_URL: Final[dict[str, Any]] = {"type": "string", "pattern": "^https?://.+"}


class EtcdSource(Source):
    """Keys under a prefix of etcd, an endpoint each."""

    SUBJECT = ("prefix",)

    type: Literal["etcd"]
    addresses: Annotated[
        list[fields.Url],
        BeforeValidator(fields.listed),
        Field(min_length=1),
        WithJsonSchema({"anyOf": [_URL, {"type": "array", "items": _URL, "minItems": 1}]}),
    ] = Field(
        default=list(_ETCD.addresses), description="Members of one cluster; after an error the next one"
    )
    prefix: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="Keys that begin with this, to its last character"
    )
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="null: without authentication"
    )
    password: fields.SecretText = Field(default=None, description="Of the user")
    timeout: fields.Duration = Field(
        default=values.Seconds(_ETCD.timeout_s), description="For one request, to the end of its answer"
    )
    resync: fields.Duration = Field(
        default=values.Seconds(_ETCD.resync_s),
        description="Everything is read again after this at the latest",
    )
    tls: Tls = Tls()

    @field_validator("prefix")
    @classmethod
    def _prefix_ends_with_a_separator(cls, prefix: str) -> str:
        # /services/web would also be the beginning of /services/web-admin/..., and send its clients there
        if prefix[-1].isalnum():
            raise ValueError(
                f"end it with the separator, as in {values.shown(prefix + '/')}: other names may begin alike"
            )
        return prefix

    @model_validator(mode="after")
    def _fits_together(self) -> EtcdSource:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        if self.tls != Tls() and not any(address.startswith("https:") for address in self.addresses):
            raise ValueError("tls belongs to https:// addresses")
        return self

    def registry(self) -> EtcdOptions:
        return EtcdOptions(
            self.prefix,
            tuple(self.addresses),
            self.username,
            self.password,
            self.tls.options(),
            float(self.timeout),
            resync_s=float(self.resync),
        )
