"""Fixtures that start programs of others for one test. A test that asks for one is marked `foreign`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.servers.certificates import Authority
from tests.servers.consul import ACLS, ROOT_TOKEN, Consul, consul_agent
from tests.servers.consul import consul_servers as run_consul_servers
from tests.servers.etcd import Etcd
from tests.servers.etcd import etcd as run_etcd
from tests.servers.haproxy import haproxy as run_haproxy
from tests.servers.knot import Knot
from tests.servers.knot import knot as run_knot
from tests.servers.netns import Namespace, network_namespace
from tests.servers.nginx import nginx_http as run_nginx_http
from tests.servers.nginx import nginx_stream as run_nginx_stream
from tests.servers.process import Server
from tests.servers.programs import require
from tests.servers.redis import redis as run_redis

StartServer = Callable[[str], Server]
"""Takes a configuration, in which `@name@` stands for a port to listen on; the server is ended with the test."""

FOREIGN_FIXTURES = frozenset(
    {
        "consul",
        "consul_servers",
        "consul_with_acls",
        "etcd",
        "haproxy",
        "knot",
        "netns",
        "nginx_http",
        "nginx_stream",
        "redis",
    }
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by what is asked for, before `-m` selects by mark."""
    for item in items:
        if not FOREIGN_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.foreign)


def _starter(
    run: Callable[[str, Path], AbstractContextManager[Server]], program: str, folder: Path
) -> Iterator[StartServer]:
    require(program)  # a test is skipped before it starts, not in its middle
    with ExitStack() as running:
        count = 0

        def start(config: str) -> Server:
            nonlocal count
            count += 1
            return running.enter_context(run(config, folder / str(count)))

        yield start


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[StartServer]:
    """Start HAProxy with a whole configuration."""
    yield from _starter(run_haproxy, "haproxy", tmp_path / "haproxy")


@pytest.fixture
def nginx_stream(tmp_path: Path) -> Iterator[StartServer]:
    """Start nginx with the inside of a `stream {}` block."""
    yield from _starter(run_nginx_stream, "nginx", tmp_path / "nginx_stream")


@pytest.fixture
def nginx_http(tmp_path: Path) -> Iterator[StartServer]:
    """Start nginx with the inside of an `http {}` block."""
    yield from _starter(run_nginx_http, "nginx", tmp_path / "nginx_http")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    """Run an empty Redis server."""
    with run_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def knot(tmp_path: Path) -> Iterator[Knot]:
    """Run a DNS server with a zone that is all but empty."""
    with run_knot(tmp_path / "knot") as server:
        yield server


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[Consul]:
    """Run one Consul agent that keeps all in memory: killed and started again, it has forgotten everything."""
    with consul_agent(tmp_path / "consul") as agent:
        yield agent


@pytest.fixture
def consul_with_acls(tmp_path: Path) -> Iterator[Consul]:
    """Run one Consul agent that denies what no token allows; the fixture itself speaks as root."""
    with consul_agent(tmp_path / "consul", options=("-hcl", ACLS), token=ROOT_TOKEN) as agent:
        agent.wait_for_acls()
        yield agent


@pytest.fixture
def consul_servers(tmp_path: Path) -> Iterator[list[Consul]]:
    """Run three Consul servers that have elected a leader."""
    with run_consul_servers(tmp_path / "consul") as servers:
        yield servers


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """Run an etcd without anything in it."""
    with run_etcd(tmp_path / "etcd") as member:
        yield member


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make a certificate authority."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Namespace]:
    """Make a network namespace with loopback up."""
    with network_namespace(tmp_path / "netns") as namespace:
        yield namespace
