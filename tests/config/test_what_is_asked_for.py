"""What a source follows, in words: for the log and the status, when nobody answers to it."""

from __future__ import annotations

import pytest

from tests.config.texts import loaded, upstream


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("type: consul, service: web", "service 'web'"),
        (
            "type: consul, service: web, tags: [a, b], datacenter: eu",
            "service 'web', tags a, b, datacenter 'eu'",
        ),
        ("type: consul, query: q", "query 'q'"),
        ("type: etcd, prefix: /x/", "prefix '/x/'"),
        ("type: zookeeper, hosts: 'h:2181', path: /x", "path '/x'"),
        ("type: kubernetes, service: web, namespace: shop", "service 'web', namespace 'shop'"),
        ("type: dns, name: web.internal, port: 80", "name 'web.internal', port 80"),
        ("type: dns, name: _web._tcp.internal, record: srv", "name '_web._tcp.internal', record 'srv'"),
        ("type: file, path: /etc/endpoints.yaml", "path '/etc/endpoints.yaml'"),
        ("type: http, url: 'http://h/x?token=secret'", "url 'http://h/x?token=***'"),
        ("type: push", ""),
    ],
)
def test_what_is_asked_for_is_told_by_what_differs_from_the_defaults(written: str, told: str) -> None:
    (source,) = loaded(upstream(f"discovery: {{{written}}}")).configuration.upstreams["web"].discovery
    assert source.asks_for == told
