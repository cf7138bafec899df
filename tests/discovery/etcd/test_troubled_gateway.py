"""The registry against a loopback gateway that does what a real etcd cannot be made to do."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.etcd import registry as registries
from lbproxy.discovery.etcd.gateway import SHOWN
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.discovery.etcd.registry import EtcdRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import HttpClient
from tests.patience import WITHIN_S

HEADER = {"cluster_id": "1", "member_id": "1", "revision": "7", "raft_term": "2"}
CREATED = {"result": {"header": HEADER, "created": True}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def pair(name: str, value: str) -> dict[str, str]:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return {"key": encoded(f"/web/{name}"), "value": encoded(value), "mod_revision": "7"}


def page(*pairs: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"header": HEADER, "kvs": list(pairs), "count": str(len(pairs)), **more}


ONE = page(pair("a", "10.0.0.1:80"))


def line(told: object) -> bytes:
    return json.dumps(told).encode() + b"\n"


def put(name: str, value: str, revision: str = "8") -> dict[str, Any]:
    return {"result": {"header": {**HEADER, "revision": revision}, "events": [{"kv": pair(name, value)}]}}


class Gateway:
    """`range_` and `watch` answer those requests."""

    def __init__(self) -> None:
        self.url = ""
        self.end = asyncio.Event()
        self.asked: list[dict[str, Any]] = []
        self.range_: Handler = self.says(ONE)
        self.watch: Handler = self.streams(line(CREATED))

    def says(self, told: object, status: int = 200, **headers: str) -> Handler:
        """The same answer every time: JSON, or bytes as they are."""
        body = told if isinstance(told, bytes) else json.dumps(told).encode()

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=body, status=status, headers=headers)

        return answer

    def in_turn(self, *told: object) -> Handler:
        answers = iter(told)

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=json.dumps(next(answers)).encode())

        return answer

    def streams(self, *pieces: bytes, then: str = "waits") -> Handler:
        """A chunked answer; then it waits, ends well, or is cut."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0)
            if then == "waits":
                await self.end.wait()
            if then == "cut" and request.transport is not None:
                request.transport.abort()
            return response

        return answer

    def trickles(self, text: bytes) -> Handler:
        """A byte, and then another one, in the order of seconds."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for at in range(len(text)):
                await response.write(text[at : at + 1])
                try:
                    async with asyncio.timeout(0.05):
                        await self.end.wait()
                    break
                except TimeoutError:
                    continue
            return response

        return answer

    async def handle_range(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        return await self.range_(request)

    async def handle_watch(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        return await self.watch(request)


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    server = Gateway()
    app = web.Application()
    app.router.add_post("/v3/kv/range", server.handle_range)
    app.router.add_post("/v3/watch", server.handle_watch)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.end.set()
        await runner.cleanup()


@asynccontextmanager
async def following(server: Gateway, **options: Any) -> AsyncIterator[EtcdRegistry]:
    given = EtcdOptions("/web/", (server.url,), timeout_s=20.0)
    http = HttpClient()
    registry = EtcdRegistry(replace(given, **options), http, time.monotonic, random.Random(1))
    try:
        async with asyncio.timeout(WITHIN_S):
            yield registry
    finally:
        await registry.close()
        await http.close()


def hosts(answer: Answer) -> list[str]:
    return [candidate.host for candidate in answer.candidates]


async def fails(registry: EtcdRegistry, said: str) -> RegistryError:
    with pytest.raises(RegistryError, match=said) as caught:
        await registry.next()
    return caught.value


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (b"<html>", "no JSON"),
        (b"", "no JSON"),
        (b"[]", "no object"),
        ({}, "without a header"),
        ({"header": {}}, "revision 0"),
        ({"header": {"revision": "x"}}, "revision is no number"),
        (page(kvs=5), "no list of keys"),
        (page(kvs=[5]), "no object"),
        (page({"key": "!"}, count="1"), "no base64"),
        (page(pair("../b", "x"), kvs=[{"key": "L2Iv"}]), "not asked for"),
        (page(pair("b", "x"), pair("a", "x")), "out of order"),
        (page(count="3"), "0 keys of 3"),
        (page(pair("a", "x"), count="3"), "1 keys of 3"),
        (page(count="99999999"), "99999999 keys"),
        (page(more=True), "not the last one"),
    ],
)
async def test_a_list_that_is_none_is_an_error_and_no_empty_answer(told: object, said: str) -> None:
    async with gateway() as server, following(server) as registry:
        server.range_ = server.says(told)
        await fails(registry, said)
        with pytest.raises(RegistryError, match=said):
            await registry.confirm()


@pytest.mark.parametrize(
    ("status", "body", "headers", "said", "wait_s"),
    [
        (500, b"oops", {}, "answered 500", None),
        (503, {"error": "x", "message": "etcdserver: no leader", "code": 14}, {}, "no leader", None),
        (503, {"code": 14, "message": "etcdserver: no leader", "details": []}, {}, "no leader", None),
        (429, b"", {"Retry-After": "9"}, "answered 429", 9.0),
        (404, b"404 page not found", {}, "answered 404", None),
        (302, b"", {"Location": "http://elsewhere.example/"}, "answered 302", None),
    ],
)
async def test_an_error_status_is_an_error(
    status: int, body: object, headers: dict[str, str], said: str, wait_s: float | None
) -> None:
    async with gateway() as server, following(server) as registry:
        server.range_ = server.says(body, status, **headers)
        error = await fails(registry, said)
        assert (error.retry_after_s, error.listed) == (wait_s, False)
        server.range_ = server.says(ONE)
        await registry.next()
        server.watch = server.says(body, status, **headers)
        assert (await fails(registry, said)).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("lines", "then", "said"),
    [
        ([b"<html>\n"], "waits", "no JSON"),
        ([line({"result": {}})], "waits", "without `created`"),
        ([line({"result": 5})], "waits", "neither a result nor an error"),
        ([b""], "ends", "ended before it began"),
        ([b'{"result"'], "ends", "middle of a line"),
        ([b'{"result"'], "cut", "payload"),
        ([line(CREATED), b'{"result"'], "ends", "middle of a line"),
        ([line(CREATED), b'{"result"'], "cut", "payload"),
        ([line(CREATED)], "ends", "brought nothing"),
        ([line(CREATED), b"<html>\n"], "waits", "no JSON"),
        ([line(CREATED), line([])], "waits", "neither a result nor an error"),
        ([line(CREATED), line({"result": {}})], "waits", "without a header"),
        ([line(CREATED), line({"result": {"events": 5}})], "waits", "no list"),
        ([line(CREATED), line({"result": {"events": [5]}})], "waits", "no object"),
        (
            [line(CREATED), line({"error": {"grpc_code": 14, "message": "transport is closing"}})],
            "ends",
            "transport is closing",
        ),
        ([line(CREATED), line({"error": {"code": 14, "message": "no leader"}})], "waits", "no leader"),
        (
            [line(CREATED), line({"result": {"canceled": True, "cancel_reason": "because"}})],
            "waits",
            "because",
        ),
        ([line(CREATED), line({"result": {"canceled": True}})], "waits", "it does not say why$"),
        (
            [line(CREATED), line({"result": {"canceled": True, "cancel_reason": "a\n" * 100_000}})],
            "waits",
            f": {' '.join('a' * (SHOWN // 2))}$",
        ),
        ([line({"result": {"canceled": True, "cancel_reason": "at\nonce"}})], "waits", "at once$"),
    ],
)
async def test_a_stream_that_is_none_is_an_error_and_everything_is_listed_again(
    lines: list[bytes], then: str, said: str
) -> None:
    async with gateway() as server, following(server) as registry:
        await registry.next()
        server.watch = server.streams(*lines, then=then)
        assert (await fails(registry, said)).listed
        server.watch = server.streams(line(CREATED), line(put("b", "10.0.0.2:80")))
        assert hosts(await registry.next()) == ["10.0.0.1"]
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]


async def test_messages_that_are_there_already_are_one_answer() -> None:
    async with gateway() as server, following(server) as registry:
        await registry.next()
        many = b"".join(line(put(f"b{number:02}", f"10.0.1.{number}:80")) for number in range(50))
        server.watch = server.streams(line(CREATED) + many)
        assert len((await registry.next()).candidates) == 51


async def test_of_very_many_messages_some_are_taken_at_once() -> None:
    async with gateway() as server, following(server) as registry:
        await registry.next()
        many = b"".join(line(put("b", f"10.0.1.1:{number}")) for number in range(1, 250))
        server.watch = server.streams(line(CREATED) + many)
        found = [(await registry.next()).candidates[-1].port for _ in range(3)]
        assert found == [registries.BATCH, 2 * registries.BATCH, 249]


async def test_a_stream_that_ends_after_it_worked_is_listed_again_without_a_word() -> None:
    async with gateway() as server, following(server) as registry:
        await registry.next()
        server.watch = server.streams(line(CREATED), line(put("b", "10.0.0.2:80")), then="ends")
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
        answer = await registry.next()
        assert answer.consistent
        assert hosts(answer) == ["10.0.0.1"]


async def test_watches_that_are_compacted_again_and_again_are_an_error() -> None:
    async with gateway() as server, following(server) as registry:
        compacted = {"result": {"header": HEADER, "canceled": True, "compact_revision": "9"}}
        server.watch = server.streams(line(CREATED), line(compacted))
        for _ in range(registries.COMPACTIONS):
            assert (await registry.next()).consistent
        await fails(registry, "compacted")
        assert (await registry.next()).consistent


async def test_a_list_that_is_compacted_between_its_pages_starts_again() -> None:
    async with gateway() as server, following(server) as registry:
        first, rest = page(pair("a", "10.0.0.1:80"), more=True, count="2"), page(pair("b", "10.0.0.2:80"))
        gone = {"error": "etcdserver: mvcc: required revision has been compacted", "code": 11}
        turns = iter([(first, 200), (gone, 400), (first, 200), (rest, 200)])

        async def answer(request: web.Request) -> web.Response:
            told, status = next(turns)
            return web.json_response(told, status=status)

        server.range_ = answer
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
        assert [query.get("revision") for query in server.asked] == [None, "7", None, "7"]
        again = base64.b64decode(server.asked[-1]["key"])
        assert again == b"/web/a\0"


async def test_a_key_whose_event_was_missed_is_found_in_silence() -> None:
    async with gateway() as server, following(server, quiet_s=0.05) as registry:
        await registry.next()
        server.range_ = server.says(page(pair("a", "10.0.0.1:80"), pair("b", "10.0.0.2:80")))
        answer = await registry.next()
        assert answer.consistent
        assert hosts(answer) == ["10.0.0.1", "10.0.0.2"]


async def test_a_key_in_the_place_of_another_is_found_in_silence() -> None:
    """As behind a connection that died without a word: their number is the same as before."""
    later = {**HEADER, "revision": "9"}

    async def with_b_for_a(request: web.Request) -> web.StreamResponse:
        counted = server.asked[-1].get("count_only")
        return web.json_response(
            page(*([] if counted else [pair("b", "10.0.0.2:80")]), header=later, count="1")
        )

    async with gateway() as server, following(server, quiet_s=0.05) as registry:
        await registry.next()
        server.range_ = with_b_for_a
        answer = await registry.next()
        assert (hosts(answer), answer.consistent, answer.regressed) == (["10.0.0.2"], True, False)
        asked = next(each for each in server.asked if "min_mod_revision" in each)
        assert (asked["min_mod_revision"], asked["limit"]) == ("8", "1")


@pytest.mark.parametrize("header", [{"cluster_id": "2"}, {"revision": "3"}])
async def test_another_cluster_or_one_set_back_is_called_regressed(header: dict[str, str]) -> None:
    async with gateway() as server, following(server, quiet_s=0.05) as registry:
        await registry.next()
        server.range_ = server.says({**ONE, "header": {**HEADER, **header}})
        assert (await registry.confirm()).regressed
        assert (await registry.next()).regressed
        assert not (await registry.next()).regressed


async def test_a_member_that_lags_behind_is_no_loss_of_memory() -> None:
    async with gateway() as server, following(server) as registry:
        await registry.next()
        behind = {"result": {"header": {**HEADER, "revision": "3"}, "created": True}}
        server.watch = server.streams(line(behind), line(put("b", "10.0.0.2:80")))
        answer = await registry.next()
        assert not answer.regressed
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]


async def test_a_byte_now_and_then_is_an_error_within_the_time_out() -> None:
    async with gateway() as server, following(server, timeout_s=0.6, quiet_s=0.2) as registry:
        server.range_ = server.trickles(json.dumps(ONE).encode())
        await fails(registry, "no full answer within")
        with pytest.raises(RegistryError, match="no full answer within"):
            await registry.confirm()
        server.range_ = server.says(ONE)
        await registry.next()
        server.watch = server.trickles(line(CREATED))
        await fails(registry, "no full answer within")
        await registry.next()
        event = line(put("b", "10.0.0.2:80"))

        async def begin_well(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(line(CREATED) + event[:40])
            await server.end.wait()
            return response

        server.watch = begin_well
        await fails(registry, "stuck in the middle of a message")
