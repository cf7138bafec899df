"""Every path, method and misuse of the admin interface, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from lbproxy.admin.guards import Places
from lbproxy.admin.routes import ApiRoutes, PublicRoutes
from lbproxy.admin.server import AdminServer
from tests.admin.fake import PAGE, FakeOperations, endpoint, metrics, serving, source
from tests.patience import WITHIN_S

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "admin.md"

UPSTREAM = "/api/v1/upstreams/web"
FIRST = f"{UPSTREAM}/endpoints/10.0.0.1%3A80"
SOCKET = f"{UPSTREAM}/endpoints/unix%3A%2Frun%2Fx.sock"


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def server(operations: FakeOperations) -> AsyncIterator[AdminServer]:
    async with serving(operations) as running:
        yield running


@pytest.fixture
async def http(server: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def url(server: AdminServer, path: str) -> URL:
    return URL(f"http://{server.addresses[0]}{path}", encoded=True)


async def ask(
    http: aiohttp.ClientSession, server: AdminServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if data else {}
    async with http.request(method, url(server, path), data=data, headers=kind | headers) as response:
        text = await response.text()
        if response.status >= 400 and not path.startswith("/readyz"):
            assert response.content_type == "application/problem+json"
            problem = json.loads(text)
            assert problem["status"] == response.status
            assert problem["title"]
            assert "Traceback" not in text
        assert response.headers["X-Content-Type-Options"] == "nosniff" or path == "/metrics"
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, json.loads(text) if "json" in response.content_type else text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/healthz", None, 200, []),
        ("GET", "/readyz", None, 200, []),
        ("GET", "/readyz?strict", None, 503, []),
        ("GET", "/readyz?strict=0", None, 200, []),
        ("GET", "/api/v1/config", None, 200, []),
        ("GET", "/api/v1/listeners", None, 200, []),
        ("GET", "/api/v1/registrations", None, 200, []),
        ("GET", "/api/v1/upstreams", None, 200, []),
        ("GET", UPSTREAM, None, 200, []),
        ("GET", "/api/v1/upstreams/none", None, 404, []),
        ("GET", "/api/v1/sessions", None, 200, []),
        ("GET", "/api/v1/sessions?upstream=none", None, 404, []),
        ("POST", f"{FIRST}/drain", None, 200, [("drain", "web", "10.0.0.1:80", None)]),
        ("POST", f"{FIRST}/drain", {"deadline_s": 2.5}, 200, [("drain", "web", "10.0.0.1:80", 2.5)]),
        ("POST", f"{FIRST}/drain", {"deadline_s": None}, 200, [("drain", "web", "10.0.0.1:80", None)]),
        ("POST", f"{SOCKET}/drain", {}, 200, [("drain", "web", "unix:/run/x.sock", None)]),
        ("POST", f"{UPSTREAM}/endpoints/10.0.0.1:80/drain", {}, 200, [("drain", "web", "10.0.0.1:80", None)]),
        ("POST", f"{FIRST}/undrain", None, 200, [("undrain", "web", "10.0.0.1:80")]),
        ("POST", f"{FIRST}/weight", {"weight": 3}, 200, [("weight", "web", "10.0.0.1:80", 3)]),
        ("POST", f"{FIRST}/weight", {"weight": 3.0}, 200, [("weight", "web", "10.0.0.1:80", 3)]),
        ("POST", f"{FIRST}/weight", {"weight": "auto"}, 200, [("weight", "web", "10.0.0.1:80", None)]),
        ("POST", f"{UPSTREAM}/drain", {"deadline_s": 0}, 200, [("drain", "web", 0.0)]),
        ("POST", f"{UPSTREAM}/undrain", None, 200, [("undrain", "web")]),
        ("POST", f"{UPSTREAM}/sources/consul/obey", None, 200, [("obey", "web", "consul")]),
        ("POST", f"{UPSTREAM}/sources/static/obey", {}, 409, []),
        ("POST", f"{UPSTREAM}/sources/none/obey", None, 404, []),
        ("POST", "/api/v1/upstreams/none/sources/consul/obey", None, 404, []),
        ("POST", "/api/v1/drain", None, 202, [("drain",)]),
        ("POST", "/api/v1/reload", None, 200, [("reload",)]),
        ("DELETE", "/api/v1/sessions/2", None, 200, [("kill", 2)]),
        ("DELETE", "/api/v1/sessions/99", None, 404, []),
    ],
)
async def test_a_path_does_what_it_says(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Any,
    status: int,
    told: list[tuple[Any, ...]],
) -> None:
    operations.sources.append({**source(), "name": "consul", "held": 3})
    assert (await ask(http, server, method, path, body))[0] == status
    assert operations.told == told


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/api/v1/", None, 404),
        ("GET", "/api/v1/upstreams/../../etc/passwd", None, 404),
        ("GET", f"{UPSTREAM}/explain?client=10.0.0.1", None, 404),
        ("GET", f"{FIRST}/drain", None, 405),
        ("GET", "/api/v1/drain", None, 405),
        ("GET", "/api/v1/reload", None, 405),
        ("PUT", f"{FIRST}/drain", None, 405),
        ("PUT", "/api/v1/reload", None, 405),
        ("DELETE", "/metrics", None, 405),
        ("POST", "/healthz", None, 405),
        ("DELETE", "/api/v1/sessions/x", None, 400),
        ("DELETE", "/api/v1/sessions/-1", None, 400),
        ("DELETE", "/api/v1/sessions/%D9%A1", None, 400),
        ("DELETE", f"/api/v1/sessions/{'9' * 30}", None, 400),
        ("GET", "/api/v1/sessions?limit=0", None, 400),
        ("GET", "/api/v1/sessions?limit=501", None, 400),
        ("GET", "/api/v1/sessions?limit=many", None, 400),
        ("GET", "/api/v1/sessions?after=x", None, 400),
        ("GET", "/api/v1/listeners?after=gone", None, 400),
        ("POST", f"{UPSTREAM}/endpoints/10.0.0.9%3A80/drain", None, 404),
        ("POST", f"{UPSTREAM}/endpoints/%zz/drain", None, 404),
        ("POST", f"{UPSTREAM}/endpoints/%ff%00/drain", None, 404),
        ("POST", f"{UPSTREAM}/endpoints//drain", None, 404),
        ("POST", f"{UPSTREAM}/endpoints/unix:/run/x.sock/drain", None, 404),
        ("POST", f"{FIRST}/drain", b"{", 400),
        ("POST", f"{FIRST}/drain", b"\xff\xfe", 400),
        ("POST", f"{FIRST}/drain", b"[" * 60_000, 400),
        ("POST", f"{FIRST}/drain", b"9" * 60_000, 400),
        ("POST", f"{FIRST}/drain", [1], 400),
        ("POST", f"{FIRST}/drain", {"deadline": "30s"}, 400),
        ("POST", f"{FIRST}/drain", {"deadline_s": "30s"}, 400),
        ("POST", f"{FIRST}/drain", {"deadline_s": -1}, 400),
        ("POST", f"{FIRST}/drain", {"deadline_s": True}, 400),
        ("POST", f"{FIRST}/drain", b'{"deadline_s": NaN}', 400),
        ("POST", f"{FIRST}/drain", b'{"deadline_s": 1e999}', 400),
        ("POST", f"{FIRST}/undrain", {"deadline_s": 1}, 400),
        ("POST", f"{UPSTREAM}/sources/consul/obey", {"always": True}, 400),
        ("GET", f"{UPSTREAM}/sources/consul/obey", None, 405),
        ("POST", f"{FIRST}/weight", None, 400),
        ("POST", f"{FIRST}/weight", {"weight": "3"}, 400),
        ("POST", f"{FIRST}/weight", {"weight": 1.5}, 400),
        ("POST", f"{FIRST}/weight", {"weight": True}, 400),
        ("POST", f"{FIRST}/weight", {"weight": -1}, 400),
        ("POST", f"{FIRST}/weight", {"weight": 65536}, 400),
        ("POST", f"{FIRST}/weight", b'{"weight": 1e400}', 400),
        ("POST", f"{FIRST}/drain", b" " * 65_537, 413),
        ("POST", "/api/v1/reload", {"force": True}, 400),
    ],
)
async def test_misuse_is_a_problem_and_changes_nothing(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    assert (await ask(http, server, method, path, body))[0] == status
    assert operations.told == []


async def test_a_wrong_method_is_told_the_right_ones(
    server: AdminServer, http: aiohttp.ClientSession
) -> None:
    async with http.put(url(server, "/api/v1/reload")) as response:
        assert response.headers["Allow"] == "POST"


async def test_a_form_is_refused(
    operations: FakeOperations, server: AdminServer, http: aiohttp.ClientSession
) -> None:
    async with http.post(url(server, f"{FIRST}/weight"), data={"weight": "3"}) as response:
        assert response.status == 415
    assert operations.told == []


async def test_metrics_are_written_in_their_pieces(server: AdminServer, http: aiohttp.ClientSession) -> None:
    async with http.get(url(server, "/metrics"), headers={"Accept": "text/plain"}) as response:
        assert (response.status, await response.read()) == (200, PAGE)
        assert response.headers["Content-Type"] == "text/plain; asked=text/plain"
        assert response.headers["Content-Length"] == str(len(PAGE))
    async with http.head(url(server, "/metrics")) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert response.headers["Content-Length"] == str(len(PAGE))


async def test_readiness_says_why(
    operations: FakeOperations, server: AdminServer, http: aiohttp.ClientSession
) -> None:
    operations.reasons = ("draining",)
    assert await ask(http, server, "GET", "/readyz") == (
        503,
        {"ready": False, "reasons": ["draining"], "warnings": ["spare is old"]},
    )


async def test_an_invalid_configuration_names_every_error(
    operations: FakeOperations, server: AdminServer, http: aiohttp.ClientSession
) -> None:
    operations.invalid = ("a.yaml:1:1: x: no", "a.yaml:2:1: y: no")
    status, problem = await ask(http, server, "POST", "/api/v1/reload")
    assert (status, problem["errors"]) == (409, list(operations.invalid))


async def test_lists_are_paged(
    operations: FakeOperations, server: AdminServer, http: aiohttp.ClientSession
) -> None:
    operations.names = ("c", "a", "b")

    async def walk(path: str, key: str = "items") -> list[list[Any]]:
        pages = []
        after: Any = ""
        while after is not None:
            _, page = await ask(http, server, "GET", f"{path}?limit=2&after={after}")
            pages.append([one.get("name") or one.get("id") or one["address"] for one in page[key]])
            after = page["next"]
        return pages

    assert await walk("/api/v1/listeners") == [["c", "a"], ["b"]]
    assert await walk("/api/v1/upstreams") == [["c", "a"], ["b"]]
    assert await walk("/api/v1/sessions") == [[1, 2], [3]]
    assert await walk("/api/v1/upstreams/a", "endpoints") == [["10.0.0.1:80", "unix:/run/x.sock"]]


async def test_an_answer_has_the_shape_it_promises(server: AdminServer, http: aiohttp.ClientSession) -> None:
    _, found = await ask(http, server, "GET", f"{UPSTREAM}?limit=1")
    assert found["endpoints"] == [endpoint("10.0.0.1:80")]
    assert found["next"] == "10.0.0.1:80"
    assert (found["name"], found["strategy"]) == ("web", "round_robin")


async def test_the_page_runs_nothing_but_its_own_script(
    server: AdminServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(url(server, "/")) as response:
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert response.content_type == "text/html"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "//" not in text.replace("https://", "//").replace("<!doctype", "")  # nothing from elsewhere
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy


async def test_nothing_that_others_wrote_can_become_markup_on_the_page(
    operations: FakeOperations, server: AdminServer, http: aiohttp.ClientSession
) -> None:
    """Names of endpoints and errors come from registries: they arrive as JSON, which no browser takes for a page, and the script puts
    them into the page as text alone."""
    evil = "</script><img src=x onerror=alert(1)>"
    operations.sources = [{**source(), "kind": "http", "error": evil, "says": [f"stale: {evil}"]}]
    async with http.get(url(server, UPSTREAM)) as response:
        assert evil in (await response.json())["sources"][0]["says"][0]
        assert response.content_type == "application/json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with http.get(url(server, "/")) as response:
        text = await response.text()
    assert evil not in text
    script = text.partition("<script>")[2].partition("</script>")[0]
    assert set(re.findall(r"\.(\w+) = ", script)) == {"textContent", "className"}
    assert set(re.findall(r"\bdocument\.(\w+)", script)) == {"createElement", "getElementById"}
    markup = r"HTML|insertAdjacent|\bwrite|eval|Function|DOMParser|Fragment|setAttribute|srcdoc|location"
    assert re.findall(markup, script) == []


async def test_an_unforeseen_error_stays_behind_the_wall(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Any:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(operations, "listeners", broken)
    status, problem = await ask(http, server, "GET", "/api/v1/listeners")
    assert (status, problem) == (
        500,
        {"type": "about:blank", "title": "Internal Server Error", "status": 500},
    )
    assert "a secret detail" in caplog.text
    assert (await ask(http, server, "GET", "/healthz"))[0] == 200


@pytest.mark.both_loops
async def test_orders_are_logged_with_who_gave_them(
    server: AdminServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await ask(http, server, "POST", f"{SOCKET}/drain")
    await ask(http, server, "GET", UPSTREAM)
    lines = [one.getMessage() for one in caplog.records if one.name == "lbproxy.admin"]
    assert lines == [f"POST {SOCKET}/drain from 127.0.0.1: 200"]


async def test_many_at_once_are_told_to_come_back(
    operations: FakeOperations, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.admin.server.PLACE_WITHIN_S", 0.05)
    operations.hold = asyncio.Event()
    async with serving(operations) as server, asyncio.TaskGroup() as group:
        held = [
            group.create_task(ask(http, server, "POST", "/api/v1/reload"), name=f"reload {number}")
            for number in range(9)
        ]
        done, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED, timeout=WITHIN_S)
        assert [one.result()[0] for one in done] == [503]
        assert (await ask(http, server, "GET", "/healthz"))[0] == 200  # not behind the same limit
        operations.hold.set()
    assert sorted(one.result()[0] for one in held) == [200] * 8 + [503]


def test_the_document_names_every_path(operations: FakeOperations) -> None:
    app = web.Application()
    ApiRoutes(operations).add_to(app)
    PublicRoutes(operations, metrics, Places(1, 1)).add_to(app)
    served = {
        (
            route.method,
            re.sub(r"{(name|address|source|id)}", lambda found: found[1].upper(), route.resource.canonical),
        )
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described: set[tuple[str, str]] = set()
    for cell in re.findall(
        r"^\| (`(?:GET|PUT|POST|DELETE) .*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    ):
        first, *others = re.findall(r"`([^`]+)`", cell)
        method, _, path = first.partition(" ")
        described |= {(method, path), *((method, f"{path.rpartition('/')[0]}/{other}") for other in others)}
    assert described == served
