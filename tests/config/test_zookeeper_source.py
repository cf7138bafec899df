"""`type: zookeeper` in a configuration: what it becomes, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.sources import zookeeper
from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.config.texts import errors, loaded, upstream


def test_every_key_reaches_the_options() -> None:
    text = upstream(
        "discovery: {type: zookeeper, hosts: ['zk1:2181', '[::1]:2182'], path: /services/web, session_timeout: 4s,"
        " auth: {user: me, password: {file: secret}}, tls: {ca: ca.pem}}"
    )
    (source,) = loaded(text).configuration.upstreams["web"].discovery
    assert source.registry == ZooKeeperOptions(
        ("zk1:2181", "[::1]:2182"),
        "/services/web",
        4.0,
        "me",
        Secret(path=Path("secret")),
        TlsOptions(Path("ca.pem")),
    )


def test_one_host_needs_no_list() -> None:
    text = upstream("discovery: {type: zookeeper, hosts: 'zk:2181', path: /web}")
    (source,) = loaded(text).configuration.upstreams["web"].discovery
    assert source.registry == ZooKeeperOptions(("zk:2181",), "/web")


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ("hosts: zk, path: /web", "'zk' is not host:port"),
        ("hosts: [], path: /web", "hosts: the list is empty"),
        ("hosts: 'zk:2181', path: web", "expected a node such as /services/web, got 'web'"),
        ("hosts: 'zk:2181', path: /web/", "expected a node"),
        ("hosts: 'zk:2181', path: /, session_timeout: 5s", "expected a node"),
        ("hosts: 'zk:2181', path: /web, session_timeout: 10ms", "expected 1s to 60s"),
        ("hosts: 'zk:2181', path: /web, auth: {user: 'a:b', password: '${P}'}", "auth.user"),
        ("hosts: 'zk:2181', path: /web, auth: {user: a, password: b}", "a secret in the file itself"),
    ],
)
def test_what_is_wrong_is_told(keys: str, error: str) -> None:
    (line,) = errors(upstream(f"discovery: {{type: zookeeper, {keys}}}"), {"P": "p"})
    assert error in line


def test_a_missing_extra_is_a_configuration_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zookeeper, "find_spec", lambda _: None)
    (line,) = errors(upstream("discovery: {type: zookeeper, hosts: 'zk:2181', path: /web}"))
    assert "pip install 'lbproxy[zookeeper]'" in line
