"""Whom names are asked of, as resolv.conf(5) says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.domain.errors import ResolveError
from lbproxy.wire.nameservers import NameServers, candidates


@pytest.mark.parametrize(
    ("text", "servers", "timeout_s"),
    [
        ("nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", ["192.0.2.1", "fe80::1%eth0"], 2.0),
        ("nameserver 192.0.2.1\noptions timeout:1 attempts:3 rotate edns0 trust-ad\n", ["192.0.2.1"], 1.0),
        ("nameserver 192.0.2.1\noptions timeout:0\n", ["192.0.2.1"], 1.0),
        ("nameserver 192.0.2.1\noptions timeout:30\n", ["192.0.2.1"], 5.0),
        ("# nothing here\nsearch test\n", ["127.0.0.1"], 2.0),
        ("", ["127.0.0.1"], 2.0),
        ("# \u00e4\nnameserver 192.0.2.1\n", ["192.0.2.1"], 2.0),
    ],
)
def test_resolv_conf_is_read_as_the_c_library_reads_it(
    tmp_path: Path, text: str, servers: list[str], timeout_s: float
) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_bytes(text.encode("latin-1"))
    resolver = NameServers(resolv_conf_path=conf, timeout_s=10.0).resolver("web")
    assert ([str(each).removeprefix("Do53:").removesuffix("@53") for each in resolver.nameservers]) == servers
    assert resolver.timeout == min(timeout_s, 5.0 / len(servers))


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        ("search a.test b.test", "web", ["web.a.test.", "web.b.test.", "web."]),
        ("search a.test", "web.x", ["web.x.", "web.x.a.test."]),
        ("search a.test\noptions ndots:5", "web.x.svc", ["web.x.svc.a.test.", "web.x.svc."]),
        ("search a.test\noptions ndots:0", "web", ["web.", "web.a.test."]),
        ("domain a.test", "web", ["web.a.test.", "web."]),
        ("search a.test", "web.", ["web."]),
    ],
)
def test_search_domains_count_by_ndots(tmp_path: Path, text: str, name: str, meant: list[str]) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver 192.0.2.1\n{text}\n")
    resolver = NameServers(resolv_conf_path=conf).resolver(name)
    assert [each.to_text() for each in candidates(resolver, name)] == meant


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"resolv\.conf"):
        NameServers(resolv_conf_path=tmp_path / "resolv.conf").resolver("web")
