"""`type: http`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import Field, PlainSerializer, field_validator

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source, Tls
from lbproxy.discovery.http.options import HttpOptions
from lbproxy.wire.urls import HIDDEN

_HTTP: Final = HttpOptions("")
_LEAST_INTERVAL_S: Final = 0.1
_OURS: Final = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2
_VALUE: Final = re.compile(r"[!-~]([ -~]{0,1022}[!-~])?")


class HttpSource(Source):
    """Endpoints as JSON behind a URL that is asked again and again."""

    SUBJECT = ("url",)

    type: Literal["http"]
    url: fields.Url = Field(description="http:// or https://")
    interval: fields.Duration = Field(
        default=values.Seconds(_HTTP.interval_s), description="Between two questions; at least 100ms"
    )
    timeout: fields.Duration = Field(
        default=values.Seconds(_HTTP.timeout_s), description="For one question, to the end of the answer"
    )
    headers: Annotated[dict[str, str], PlainSerializer(lambda headers: dict.fromkeys(headers, HIDDEN))] = (
        Field(default={}, description="Sent along; not for secrets")
    )
    token: fields.SecretText = Field(default=None, description="Sent along as a Bearer token")
    tls: Tls = Tls()

    @field_validator("interval")
    @classmethod
    def _asked_not_too_often(cls, interval: float) -> float:
        if interval < _LEAST_INTERVAL_S:
            raise ValueError("expected at least 100ms")
        return interval

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _SECRET:
                raise ValueError(f"{name} is a secret: use token")
            if name.lower() in _OURS or not _TOKEN.fullmatch(name):
                raise ValueError(f"{values.shown(name)} is no header that can be set")
            if not _VALUE.fullmatch(value):
                raise ValueError(f"the value of {name} must be printable ASCII, up to 1024 characters")
        return headers

    def registry(self) -> HttpOptions:
        return HttpOptions(
            self.url,
            float(self.interval),
            float(self.timeout),
            tuple(self.headers.items()),
            self.token,
            self.tls.options(),
        )
