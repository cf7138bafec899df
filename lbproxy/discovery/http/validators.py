"""What makes an answer askable for again only if it has changed (RFC 9110, 8.8 and 13.1). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lbproxy.wire.http import http_date

# A date tells a second from the next one only: an answer as young as that may have changed since within its second.
_STRONG_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Validators:
    """Of one answer from one URL. Both empty: it can not be asked for conditionally."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""

    @staticmethod
    def of(url: str, headers: Mapping[str, str]) -> Validators:
        """What an answer's headers offer. A modification date counts when it was old enough at the time of the answer."""
        modified, now = headers.get("Last-Modified", ""), headers.get("Date", "")
        modified_at, answered_at = http_date(modified), http_date(now)
        if modified_at is None or answered_at is None or answered_at - modified_at < _STRONG_AFTER_S:
            modified = ""
        return Validators(url, headers.get("ETag", ""), modified)

    def conditions(self, url: str) -> dict[str, str]:
        """The headers for the next question to `url`; none when the answer came from elsewhere."""
        if url != self.url:
            return {}
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in found.items() if value}
