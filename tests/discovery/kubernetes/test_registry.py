"""The registry against a loopback API server."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from pathlib import Path

import pytest
from aiohttp import web

from lbproxy.discovery.kubernetes import registry as registries
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.discovery.kubernetes.registry import KubernetesRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import HttpClient
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.discovery.kubernetes.api_server import (
    ApiServer,
    api_server,
    endpoint,
    refusal,
    slice_of,
)
from tests.discovery.kubernetes.following import following, hosts, until
from tests.servers.certificates import Authority


async def test_slices_are_listed_watched_and_merged() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-b", "10.0.0.2"))
        await server.put(slice_of("web-a", "10.0.0.1"))
        await server.put(slice_of("other-a", "10.0.0.9", service="other"))
        async with following(server) as registry:
            first = await registry.next()
            assert hosts(first) == ["10.0.0.1", "10.0.0.2"]
            assert first.consistent
            assert first.candidates[0].port == 8080
            assert first.candidates[0].zone == "eu-1a"
            assert dict(first.candidates[0].metadata) == {
                "kubernetes-node": "node-1",
                "kubernetes-pod": "web-10-0-0-1",
            }
            await server.put(slice_of("web-b", "10.0.0.2", "10.0.0.3"))
            assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
            await server.put(slice_of("web-c", "10.0.0.4"))
            await server.delete("web-a")
            assert hosts(await until(registry, lambda a: len(a.candidates) == 3)) == [
                "10.0.0.2",
                "10.0.0.3",
                "10.0.0.4",
            ]
            assert hosts(await registry.confirm()) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
        watch = next(query for query in server.asked if "watch" in query)
        assert watch["allowWatchBookmarks"] == "true"
        assert watch["resourceVersion"] == "103"
        assert 108 <= int(watch["timeoutSeconds"]) <= 132


async def test_a_service_that_is_not_there_is_an_empty_answer() -> None:
    async with api_server() as server, following(server) as registry:
        assert (await registry.next()).candidates == ()


async def test_a_long_list_comes_in_pages() -> None:
    async with api_server() as server:
        for number in range(2 * registries.PAGE + 1):
            await server.put(slice_of(f"web-{number:03}", f"10.0.0.{number}"))
        async with following(server) as registry:
            assert len((await registry.next()).candidates) == 2 * registries.PAGE + 1
        assert len(server.asked) == 3


async def test_a_page_whose_version_is_gone_starts_the_list_again() -> None:
    async with api_server() as server:
        for number in range(registries.PAGE + 1):
            await server.put(slice_of(f"web-{number:03}", f"10.0.0.{number}"))

        async def compact_once(request: web.Request) -> None:
            if "continue" in request.query:
                server.disturb = None
                await server.delete("web-000")
                server.compact()

        server.disturb = compact_once
        async with following(server) as registry:
            assert hosts(await registry.next())[0] == "10.0.0.1"
        assert ["continue" in query for query in server.asked] == [False, True, False]


async def test_a_list_that_never_gets_to_its_end_is_an_error() -> None:
    async with api_server() as server:
        for number in range(registries.PAGE + 1):
            await server.put(slice_of(f"web-{number:03}", f"10.0.0.{number}"))

        async def compact(request: web.Request) -> None:
            server.version += 1
            server.compact() if "continue" in request.query else None

        server.disturb = compact
        async with following(server) as registry:
            with pytest.raises(RegistryError, match="too old"):
                await registry.next()


async def test_a_watch_ends_as_agreed_and_goes_on_from_the_last_version() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server, watch_s=1.0) as registry:
            await registry.next()
            await registry.next()  # a quiet watch came to its end: all is well
            await server.put(slice_of("web-a", "10.0.0.1", "10.0.0.2"))
            assert hosts(await until(registry, lambda a: len(a.candidates) == 2)) == ["10.0.0.1", "10.0.0.2"]
        assert ["watch" in query for query in server.asked] == [False, True, True]


async def test_a_bookmark_moves_the_version_on() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server) as registry:
            await registry.next()
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(registry.next(), name="next")
                await server.until_watched()
                await server.bookmark()
                assert hosts(await waiting) == ["10.0.0.1"]
            server.compact()
            await server.cut()
            await registry.next()
            assert server.asked[-1]["resourceVersion"] == "102"  # which is not compacted


@pytest.mark.parametrize("how", ["event", "status", "at the start"])
async def test_a_version_that_is_gone_is_listed_again_without_a_word(how: str) -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        await server.put(slice_of("web-b", "10.0.0.2"))
        async with following(server) as registry:
            await registry.next()

            async def gone(request: web.Request) -> web.StreamResponse | None:
                if "watch" not in request.query:
                    server.disturb = None
                    return None
                return refusal(410, "Expired", "too old resource version")

            if how == "status":
                server.disturb = gone
            if how == "event":
                async with asyncio.TaskGroup() as group:
                    group.create_task(registry.next(), name="next")
                    await server.until_watched()
                    await server.bookmark()
            await server.delete("web-a")
            await server.put(slice_of("web-c", "10.0.0.3"))
            if how == "event":
                server.events.clear()
                await server.fail({"code": 410, "reason": "Expired", "message": "too old"})
            else:
                server.compact()
            answer = await registry.next()
            assert hosts(answer) == ["10.0.0.2", "10.0.0.3"]
            assert answer.consistent
            assert not answer.regressed


async def test_a_line_of_hundreds_of_kilobytes_is_one_event() -> None:
    async with api_server() as server, following(server) as registry:
        await registry.next()
        many = [f"10.{number // 250}.{number % 250}.1" for number in range(1200)]
        await server.put(slice_of("web-a", *many))
        assert len(json.dumps(server.slices["web-a"])) > 2 * 128 * 1024
        assert hosts(await registry.next()) == many


async def test_a_cluster_that_was_set_back_is_called_regressed() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server, resync_s=0.1) as registry:
            await registry.next()
            server.restore(7)
            answer = await registry.next()
            assert answer.regressed
            assert answer.candidates == ()
            assert not (await registry.next()).regressed


async def test_everything_is_read_again_from_time_to_time() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server, resync_s=0.1) as registry:
            await registry.next()
            server.slices.clear()  # and no event of it
            assert (await registry.next()).candidates == ()


async def test_the_token_is_read_again_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with api_server() as server:
        server.tokens = {"one"}
        await server.put(slice_of("web-a", "10.0.0.1"))
        async with following(server, token=Secret(path=token)) as registry:
            await registry.next()
            server.tokens = {"two"}
            with pytest.raises(RegistryError, match=r"401.*Unauthorized"):
                await registry.next()
            token.write_text("two-rotated\n")
            server.tokens = {"two-rotated"}
            assert hosts(await registry.next()) == ["10.0.0.1"]
            token.unlink()
            with pytest.raises(RegistryError, match="token"):
                await registry.confirm()


async def pod(folder: Path, server: ApiServer, ca: Path) -> dict[str, str]:
    """What a pod is given: files, and the environment."""
    folder.mkdir()
    (folder / "token").write_text("of-the-pod")
    (folder / "namespace").write_text("shop")
    (folder / "ca.crt").write_bytes(ca.read_bytes())
    server.tokens = {"of-the-pod"}
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


@pytest.mark.foreign
async def test_within_a_cluster_it_finds_everything_itself(tmp_path: Path, authority: Authority) -> None:
    ours = authority.sign("kubernetes")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(ours.certificate, ours.key)
    wrong = Authority(tmp_path / "wrong")
    async with api_server(tls) as server:
        await server.put(slice_of("web-a", "10.0.0.1"))
        environ = await pod(tmp_path / "pod", server, authority.ca)
        http = HttpClient()
        try:
            for options, environment, said in (
                (KubernetesOptions("web"), environ, None),
                (KubernetesOptions("web", tls=TlsOptions(ca=wrong.ca)), environ, "certificate"),
                (KubernetesOptions("web", namespace="other"), environ, "403.*other"),
                (KubernetesOptions("web", token=Secret(value="mine")), environ, "401"),
                (KubernetesOptions("web"), {}, "KUBERNETES_SERVICE_HOST"),
            ):
                registry = KubernetesRegistry(
                    options, http, time.monotonic, random.Random(1), environment, tmp_path / "pod"
                )
                if said is None:
                    assert hosts(await registry.next()) == ["10.0.0.1"]
                    assert hosts(await registry.confirm()) == ["10.0.0.1"]
                else:
                    with pytest.raises(RegistryError, match=said):
                        await registry.next()
                await registry.close()
        finally:
            await http.close()


async def test_it_can_be_cancelled_anywhere_and_asked_again() -> None:
    async with api_server() as server:
        await server.put(slice_of("web-a", "10.0.0.0"))
        async with following(server, watch_s=1.0) as registry:
            for tries in range(100):
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(registry.next(), name="next")
                    for _ in range(tries % 20):
                        await asyncio.sleep(0)
                    if tries % 7 == 0:
                        await server.put(slice_of("web-a", f"10.0.0.{tries}"))
                    task.cancel()
            await until(registry, lambda answer: hosts(answer) == ["10.0.0.98"])


async def test_one_that_drains_takes_no_new_sessions_while_another_is_ready() -> None:
    async with api_server() as server:
        leaving = endpoint("10.0.0.1", conditions={"ready": False, "serving": True, "terminating": True})
        await server.put(slice_of("web-a", leaving, "10.0.0.2"))
        async with following(server) as registry:
            assert [(c.host, c.weight) for c in (await registry.next()).candidates] == [
                ("10.0.0.1", 0),
                ("10.0.0.2", 1),
            ]
