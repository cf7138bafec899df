"""`type: http`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source
from lbproxy.discovery.http.options import HttpOptions

_HTTP: Final = HttpOptions("")


class HttpSource(Source):
    """Endpoints as JSON behind a URL that is asked again and again."""

    type: Literal["http"]
    url: fields.Url = Field(description="http:// or https://")
    interval: fields.Duration = Field(
        default=values.Seconds(_HTTP.interval_s), description="Between two questions"
    )

    def registry(self) -> HttpOptions:
        return HttpOptions(self.url, float(self.interval))
