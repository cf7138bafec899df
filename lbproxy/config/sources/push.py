"""`type: push`."""

from __future__ import annotations

from typing import Literal

from lbproxy.config.sources.source import Source
from lbproxy.discovery.push.options import PushOptions


class PushSource(Source):
    """Endpoints that register themselves over the admin interface."""

    SUBJECT = ()

    type: Literal["push"]

    def registry(self) -> PushOptions:
        return PushOptions()
