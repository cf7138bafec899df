"""The registry against a real agent that speaks HTTPS alone and wants to see a certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.discovery.consul.registry import ConsulRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.consul import ConsulClient
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient
from lbproxy.wire.tls_options import TlsOptions
from tests.servers.certificates import Authority
from tests.servers.consul import Consul, consul_agent

pytestmark = pytest.mark.foreign


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def agent(authority: Authority, tmp_path: Path) -> Iterator[Consul]:
    server, operator = (
        authority.sign("server.dc1.consul", address="127.0.0.9"),
        authority.sign("op"),
    )
    context = ssl.create_default_context(cafile=authority.ca)
    context.check_hostname = False
    context.load_cert_chain(operator.certificate, operator.key)
    hcl = (
        f'ca_file = "{authority.ca}" cert_file = "{server.certificate}" key_file = "{server.key}" '
        "verify_incoming_https = true ports { https = @https@ }"
    )
    with consul_agent(tmp_path / "consul", options=("-hcl", hcl), tls=context) as consul:
        consul.register(1)
        yield consul


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def registry(agent: Consul, tls: TlsOptions, http: HttpClient) -> ConsulRegistry:
    access = ConsulAccess(agent.address, tls=tls)
    options = ConsulOptions(service="web", access=access, wait_s=1.0)
    return ConsulRegistry(options, ConsulClient(access, http), asyncio.sleep, Random(1))


async def test_both_prove_who_they_are(authority: Authority, agent: Consul, http: HttpClient) -> None:
    own = authority.sign("lbproxy")
    name = "server.dc1.consul"
    good = TlsOptions(authority.ca, own.certificate, own.key, server_name=name)
    assert [each.port for each in (await registry(agent, good, http).next()).candidates] == [1]
    unchecked = TlsOptions(None, own.certificate, own.key, verify=False)
    assert [each.port for each in (await registry(agent, unchecked, http).next()).candidates] == [1]


async def test_whom_we_do_not_know_is_told_why(
    authority: Authority, agent: Consul, http: HttpClient, tmp_path: Path
) -> None:
    own, name = authority.sign("lbproxy"), "server.dc1.consul"
    other = Authority(tmp_path / "other")
    for tls, words in [
        (
            TlsOptions(None, own.certificate, own.key, server_name=name),
            "unable to get local issuer|self.signed",
        ),
        (TlsOptions(other.ca, own.certificate, own.key, server_name=name), "not accepted: "),
        (TlsOptions(authority.ca, own.certificate, own.key), "not accepted: IP address mismatch"),
        (TlsOptions(authority.ca, server_name=name), "certificate"),
        (TlsOptions(tmp_path / "none.pem", server_name=name), "none.pem"),
    ]:
        with pytest.raises(RegistryError, match=words):
            await registry(agent, tls, http).next()


async def test_a_certificate_that_is_replaced_is_used_for_the_next_connection(
    authority: Authority, agent: Consul, http: HttpClient, tmp_path: Path
) -> None:
    own, other = authority.sign("lbproxy"), Authority(tmp_path / "other")
    file = tmp_path / "ca.pem"
    file.write_bytes(other.ca.read_bytes())
    found = registry(agent, TlsOptions(file, own.certificate, own.key, server_name="server.dc1.consul"), http)
    with pytest.raises(RegistryError, match="not accepted"):
        await found.next()
    file.write_bytes(authority.ca.read_bytes())
    assert [each.port for each in (await found.next()).candidates] == [1]
