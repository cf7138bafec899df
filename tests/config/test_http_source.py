"""`type: http` in a configuration: what it becomes, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.discovery.http.options import HttpOptions
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.config.texts import errors, loaded, upstream


def test_every_key_reaches_the_options() -> None:
    text = upstream(
        "discovery: {type: http, url: 'https://r.internal/x', interval: 2s, timeout: 500ms, token: {file: secret},"
        " headers: {X-Tenant: a, key: b}, tls: {ca: ca.pem, server_name: r, verify: false}}"
    )
    (source,) = loaded(text).configuration.upstreams["web"].discovery
    assert source.name == "http"
    assert source.registry == HttpOptions(
        "https://r.internal/x",
        2.0,
        0.5,
        (("X-Tenant", "a"), ("key", "b")),
        Secret(path=Path("secret")),
        TlsOptions(Path("ca.pem"), server_name="r", verify=False),
    )


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ("interval: 1ms", "interval: expected at least 100ms"),
        ("headers: {Authorization: x}", "headers: Authorization is a secret: use token"),
        ("headers: {Content-Length: '3'}", "is no header that can be set"),
        ("headers: {'a b': x}", "is no header that can be set"),
        ('headers: {a: "x\\r\\ny"}', "the value of a must be printable ASCII"),
        ("token: abc", "a secret in the file itself"),
        ("url: 'http://u:p@h/'", "credentials do not stand in a URL"),
        ("path: x", "unknown key"),
    ],
)
def test_what_is_wrong_is_told(keys: str, error: str) -> None:
    url = "" if keys.startswith("url") else "url: 'http://h/', "
    (line,) = errors(upstream(f"discovery: {{type: http, {url}{keys}}}"))
    assert error in line
    assert line.startswith("7:")
