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
        ("url: 'htp://u:p@h/?token=s'", "got 'htp://***@h/?token=***'"),
        ("url: 'u:p@h/?token=s'", "got '***@h/?token=***'"),
        ("url: 'http://h:x/?token=s'", "'http://h:x/?token=***' is no URL"),
        ("path: x", "unknown key"),
    ],
)
def test_what_is_wrong_is_told(keys: str, error: str) -> None:
    url = "" if keys.startswith("url") else "url: 'http://h/', "
    (line,) = errors(upstream(f"discovery: {{type: http, {url}{keys}}}"))
    assert error in line
    assert line.startswith("7:")


def test_what_may_be_secret_is_not_in_the_document_that_is_shown() -> None:
    text = upstream(
        "discovery: [{type: http, url: 'http://h/x?token=s1&env=s2', headers: {X-Api-Key: s3}, token: {file: t}}, "
        "{type: etcd, prefix: /x/, addresses: 'http://h:2379/?s4'}]"
    )
    (http, etcd) = loaded(text).document["upstreams"]["web"]["discovery"]
    assert (http["url"], http["headers"]) == ("http://h/x?token=***&env=***", {"X-Api-Key": "***"})
    assert http["token"] == {"file": "t"}
    assert etcd["addresses"] == ["http://h:2379/?***"]
