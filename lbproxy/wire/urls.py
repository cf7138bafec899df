"""URLs as they may be shown: in logs, errors, on pages. A query and what stands before an @ may hold what is not for everybody's eyes."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

# Bounded, because what is logged may be anybody's words: a scheme of any length would be looked for from each of its letters.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}://\S*")
_PUNCTUATION: Final = ":,;.'\")]"
_CREDENTIALS: Final = re.compile(r"[^\s:/@'\"]{1,64}:(?!//)[^\s@'\"]{1,256}@")
_AUTHORITY: Final = re.compile(r"[^/?#]*")
_HOST_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")


def redacted(text: str) -> str:
    """The text with every URL in it as `redacted_url` shows it. Of a URL the end is taken to be white space, and
    punctuation before that."""
    return _URL.sub(_redacted_found, text) if "://" in text else text


def without_credentials(text: str) -> str:
    """As `redacted`, and `***@` for each `user:password@`, whatever stands before it."""
    return _CREDENTIALS.sub(f"{HIDDEN}@", redacted(text))


def redacted_url(url: str) -> str:
    """The URL with `***` for the credentials before its host, for each value of its query (a query without `=` is a value), and for
    its fragment. The path stays. Anything is taken for a URL, also one without a scheme."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest, mark, fragment = _without_credentials(rest).partition("#")
    place, asked, query = rest.partition("?")
    shown = "&".join(_redacted_value(each) for each in query.split("&")) if query else ""
    return f"{scheme}{separator}{place}{asked}{shown}{mark}{HIDDEN if fragment else ''}"


def _redacted_found(found: re.Match[str]) -> str:
    url = found[0].rstrip(_PUNCTUATION)
    return redacted_url(url) + found[0][len(url) :]


def _without_credentials(rest: str) -> str:
    found = _AUTHORITY.match(rest)
    authority = "" if found is None else found[0]
    if "@" in authority:
        return f"{HIDDEN}@{rest[authority.rindex('@') + 1 :]}"
    # A password with a / or ? in it, as it should not be written: what looks like a port is none.
    if "@" in rest and not _HOST_PORT.fullmatch(authority):
        return f"{HIDDEN}@{rest[rest.rindex('@') + 1 :]}"
    return rest


def _redacted_value(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    return f"{key}={HIDDEN}" if equals else HIDDEN if key else ""
