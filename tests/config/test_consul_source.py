"""`type: consul`: what its keys become, and what does not fit together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.config.texts import errors, loaded, upstream
from tests.patience import WITHIN_S


def options(keys: str, environ: dict[str, str] | None = None) -> ConsulOptions:
    (source,) = (
        loaded(upstream(f"discovery: {{type: consul, {keys}}}"), environ)
        .configuration.upstreams["web"]
        .discovery
    )
    assert isinstance(source.registry, ConsulOptions)
    return source.registry


def test_a_service_alone_is_enough() -> None:
    found = options("service: web")
    assert found == ConsulOptions(service="web")
    assert (found.wait_s, found.max_stale_s, found.access.address) == (55.0, 10.0, "http://127.0.0.1:8500")


def test_every_key_is_passed_on() -> None:
    found = options(
        "address: 'https://consul.internal:8501/api', service: web, tags: [a, b], filter: 'F == 1', near: _agent,"
        " address_from: wan, critical: remove, warning: drain, consistency: stale, max_stale: 2s, wait: 1m,"
        " datacenter: dc2, namespace: team, partition: p, token: '${T}',"
        " tls: {ca: ca.pem, certificate: c.pem, key: k.pem, server_name: s, verify: false}",
        {"T": "x"},
    )
    assert found == ConsulOptions(
        service="web",
        access=ConsulAccess(
            "https://consul.internal:8501/api",
            Secret(value="x"),
            TlsOptions(Path("ca.pem"), Path("c.pem"), Path("k.pem"), "s", verify=False),
            "dc2",
            "team",
            "p",
        ),
        tags=("a", "b"),
        filter="F == 1",
        near="_agent",
        consistency="stale",
        max_stale_s=2.0,
        wait_s=60.0,
        critical="remove",
        warning="drain",
        address_from="wan",
    )
    assert options("query: q, interval: 3s, address: 'unix:/run/consul.sock', tags: []") == ConsulOptions(
        query="q", interval_s=3.0, access=ConsulAccess("unix:/run/consul.sock")
    )
    assert options("service: web, tags: blue").tags == ("blue",)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("near: x", "either service or query"),
        ("service: web, query: q", "either service or query"),
        ("query: q, tags: [a]", "tags and filter stand in the prepared query itself"),
        ("query: q, filter: a", "tags and filter stand in the prepared query itself"),
        ("service: web, interval: 1s", "interval belongs to query: a service is watched"),
        ("service: web, max_stale: 1s", "max_stale belongs to consistency: stale"),
        ("service: web, tls: {verify: true}", "tls belongs to an https:// address"),
        ("service: web, tags: ['a`\"']", 'Consul cannot filter by a tag that holds both a ` and a "'),
        ("service: web, wait: 11m", "'11m' is out of range: 1s to 10m"),
        ("service: web, wait: 10ms", "'10ms' is out of range: 1s to 10m"),
        ("service: web, address: 'unix:here'", "expected unix:/path, got 'unix:here'"),
        (
            "service: web, address: 'consul:8500'",
            "expected http://host, https://host or unix:/path, got 'consul:8500'",
        ),
        ("service: web, address: 'http://c/?token=x'", "the agent's address has no query and no fragment"),
        ("service: web, address: 'http://a:b@c'", "credentials do not stand in a URL: it is shown in logs"),
        ("service: web, critical: keep", "'keep' is not one of "),
        ("service: ''", "at least 1 character"),
        ("service: web, token: secret", "a secret in the file itself"),
        ("servce: web", "unknown key (did you mean 'service'?)"),
    ],
)
def test_what_does_not_fit_is_told_where_it_stands(keys: str, what: str) -> None:
    found = errors(upstream(f"discovery: {{type: consul, {keys}}}"))
    assert any(what in line and "upstreams.web.discovery" in line for line in found), found


def test_a_check_of_the_configuration_loads_no_client(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(upstream("discovery: {type: consul, service: web}"))
    program = (
        "import sys; from lbproxy.cli.main import main\n"
        f"status = main(['check', '-c', {str(file)!r}])\n"
        "print(status, sorted({'aiohttp', 'consul', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=WITHIN_S
    )
    assert done.stdout.splitlines()[-1] == "0 []"
