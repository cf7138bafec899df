"""Configurations to break: a good one, and the same with a fragment at a known place."""

from __future__ import annotations

from collections.abc import Mapping

from lbproxy.config.load import ConfigError, Loaded, load_text

GOOD = """\
listeners:
  web:
    bind: 127.0.0.1:8080
    upstream: web
upstreams:
  web:
    endpoints: [10.0.0.1:80]
"""


def top(fragment: str) -> str:
    """The fragment on line 1, before a good configuration."""
    return f"{fragment}\n{GOOD}"


def listener(fragment: str) -> str:
    """The fragment on line 5, column 5, in a listener that is good without it."""
    return GOOD.replace("    upstream: web\n", f"    upstream: web\n    {fragment}\n")


def bind(fragment: str) -> str:
    """A listener's bind, at line 3, column 11."""
    return GOOD.replace("127.0.0.1:8080", fragment)


def upstream(fragment: str) -> str:
    """The fragment on line 7, column 5, as all there is in the upstream."""
    return GOOD.replace("endpoints: [10.0.0.1:80]", fragment)


def served(fragment: str) -> str:
    """The fragment on line 8, column 5, in an upstream that is good without it."""
    return f"{GOOD}    {fragment}\n"


def endpoint(fragment: str) -> str:
    """The fragment on line 7, column 39, in an endpoint that is good without it."""
    return upstream(f"endpoints: [{{address: 10.0.0.1:80, {fragment}}}]")


def plain(text: str) -> str:
    """The whole text as it is."""
    return text


def nothing_is_local(_ip: str) -> bool:
    return False


def loaded(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    return load_text(text, "f", environ or {}, is_local=nothing_is_local)


def errors(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The error lines without the file's name; none when the text is good."""
    try:
        loaded(text, environ)
    except ConfigError as error:
        return [line.removeprefix("f:") for line in error.errors]
    return []
