"""`type: etcd` and `type: kubernetes`: from the file to the options."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.config import texts

TLS = TlsOptions(Path("ca.crt"), Path("us.crt"), Path("us.key"), "registry.example", verify=False)
TLS_WRITTEN = (
    "tls: {ca: ca.crt, certificate: us.crt, key: us.key, server_name: registry.example, verify: false}"
)


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("type: etcd, prefix: /web/", EtcdOptions("/web/")),
        (
            "type: etcd, prefix: 'web:', addresses: 'http://10.0.0.1:2379'",
            EtcdOptions("web:", ("http://10.0.0.1:2379",)),
        ),
        (
            (
                "type: etcd, prefix: /web/, addresses: ['https://a:2379', 'https://b:2379'], username: me,"
                f" password: {{file: pw}}, timeout: 1s, resync: 1m, {TLS_WRITTEN}"
            ),
            EtcdOptions(
                *("/web/", ("https://a:2379", "https://b:2379"), "me", Secret(path=Path("pw")), TLS, 1.0),
                resync_s=60.0,
            ),
        ),
        ("type: kubernetes, service: web", KubernetesOptions("web")),
        ("type: kubernetes, service: web, port: 8080", KubernetesOptions("web", port=8080)),
        (
            (
                "type: kubernetes, service: web, namespace: shop, port: http, family: ipv6, address: 'https://a:6443',"
                f" token: {{file: token}}, timeout: 1s, resync: 1m, {TLS_WRITTEN}"
            ),
            KubernetesOptions(
                *("web", "shop", "http", "ipv6", "https://a:6443", Secret(path=Path("token")), TLS, 1.0),
                resync_s=60.0,
            ),
        ),
        (
            f"type: kubernetes, service: web, {TLS_WRITTEN}",  # the cluster's own address is https
            KubernetesOptions("web", tls=TLS),
        ),
    ],
)
def test_what_is_written_is_what_the_registry_gets(written: str, options: object) -> None:
    upstream = texts.loaded(texts.upstream(f"discovery: {{{written}}}")).configuration.upstreams["web"]
    assert [source.registry for source in upstream.discovery] == [options]


def test_a_prefix_that_no_key_can_have_is_an_error() -> None:
    text = texts.upstream("discovery: {type: etcd, prefix: '${PREFIX}'}")
    assert texts.errors(text, {"PREFIX": "/\udcff/"}) == [
        "7:37: upstreams.web.discovery.prefix: input should be a valid string, unable to parse raw data as a unicode string"
    ]
