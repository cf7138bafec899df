"""The Consul client against a real agent: reads, waits, writes, errors, and py-consul's own methods over our transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lbproxy.domain.errors import RegistryError
from lbproxy.wire.consul import ConsulClient, ConsulRefused
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient
from lbproxy.wire.secrets import Secret
from tests.servers.consul import Consul


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def test_a_key_is_written_read_and_deleted(consul: Consul, http: HttpClient) -> None:
    client = ConsulClient(ConsulAccess(consul.address), http)
    assert (await client.get("/v1/kv/a/b", allow_404=True)).status == 404
    assert (await client.put("/v1/kv/a/b", body=b"text")).json() is True
    reply = await client.get("/v1/kv/a/b", {"raw": ""})
    assert (reply.status, reply.text, reply.known_leader, reply.last_contact_s) == (200, "text", True, 0.0)
    assert (reply.index or 0) > 1
    assert not reply.filtered_by_acls
    assert (await client.delete("/v1/kv/a/b")).json() is True
    with pytest.raises(ConsulRefused) as refused:
        await client.get("/v1/kv/a/b")
    assert refused.value.status == 404


async def test_a_blocking_query_returns_when_something_is_newer_and_after_its_wait(
    consul: Consul, http: HttpClient
) -> None:
    client = ConsulClient(ConsulAccess(consul.address), http)
    await client.put("/v1/kv/a", body=b"1")
    first = await client.get("/v1/kv/a")
    index = first.index or 0
    unchanged = await client.get("/v1/kv/a", index=index, wait_s=0.05)
    assert (unchanged.index, unchanged.digest) == (index, first.digest)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.get("/v1/kv/a", index=index, wait_s=60), name="waits")
        await client.put("/v1/kv/a", body=b"2")
    changed = waiting.result()
    assert (changed.index or 0) > index
    assert changed.digest != first.digest


async def test_a_wait_can_be_cancelled_and_its_connection_goes(consul: Consul, http: HttpClient) -> None:
    client = ConsulClient(ConsulAccess(consul.address), http)
    await client.put("/v1/kv/a", body=b"1")
    index = (await client.get("/v1/kv/a")).index or 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.get("/v1/kv/a", index=index, wait_s=60)


async def test_the_librarys_methods_go_over_our_transport(consul: Consul, http: HttpClient) -> None:
    client = ConsulClient(ConsulAccess(consul.address), http)
    assert await client.call(
        lambda api: api.agent.service.register(
            "web server", service_id="a b/c", address="127.0.0.1", port=80, tags=["x"], weights={"Passing": 3}
        )
    )
    index, nodes = await client.call(lambda api: api.health.service("web server", tag=["x"]))
    assert int(index) > 1
    assert [(each["Service"]["ID"], each["Service"]["Weights"]["Passing"]) for each in nodes] == [
        ("a b/c", 3)
    ]
    index, nodes = await client.call(lambda api: api.health.service("web server", index=index, wait="0.05s"))
    assert len(nodes) == 1
    assert await client.call(lambda api: api.kv.put("k", "v", cas=0))
    assert (await client.call(lambda api: api.kv.get("k")))[1]["Value"] == b"v"
    assert (await client.call(lambda api: api.kv.get("none")))[1] is None
    with pytest.raises(ConsulRefused, match="CheckID"):
        await client.call(lambda api: api.agent.check.ttl_pass("unknown"))


async def test_the_token_is_read_again_for_every_request(
    consul_with_acls: Consul, http: HttpClient, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    client = ConsulClient(ConsulAccess(consul_with_acls.address, Secret(path=file)), http)
    with pytest.raises(RegistryError, match="No such file"):
        await client.put("/v1/kv/a", body=b"1")
    file.write_text("no such token\n")
    with pytest.raises(ConsulRefused, match="ACL not found") as refused:
        await client.put("/v1/kv/a", body=b"1")
    assert refused.value.status == 403
    assert "no such token" not in str(refused.value)
    file.write_text(consul_with_acls.token('key_prefix "" { policy = "write" }') + "\n")
    assert (await client.put("/v1/kv/a", body=b"1")).json() is True


async def test_an_agent_that_is_gone_is_told_at_once(consul: Consul, http: HttpClient) -> None:
    client = ConsulClient(ConsulAccess(consul.address), http)
    await client.get("/v1/status/leader")
    consul.kill()
    with pytest.raises(RegistryError, match=f"consul {consul.address}/v1/status/leader: "):
        await client.get("/v1/status/leader")
