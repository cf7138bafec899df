"""The commands that talk to a running instance: what they ask for, what they print, how they end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lbproxy.admin.options import AdminOptions
from lbproxy.cli import tables
from lbproxy.cli.main import main
from lbproxy.wire.secrets import Secret
from tests.admin.fake import LOOPBACK, FakeOperations, serving, source, unix


@dataclass
class Done:
    code: int
    out: str
    err: str


Lbproxy = Callable[..., Coroutine[Any, Any, Done]]


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBPROXY_ADMIN", raising=False)
    monkeypatch.delenv("LBPROXY_ADMIN_TOKEN", raising=False)


async def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    code = await asyncio.to_thread(main, arguments)
    captured = capsys.readouterr()
    return Done(code, captured.out, captured.err)


@pytest.fixture
async def lbproxy(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Lbproxy]:
    """Run a command against the fake instance."""
    async with serving(operations) as server:
        monkeypatch.setenv("LBPROXY_ADMIN", str(server.addresses[0]))

        async def run(*arguments: str) -> Done:
            return await command(capsys, *arguments)

        yield run


STATUS = """\
ready
  warning: spare is old

LISTENER  ADDRESSES       UPSTREAM  STATE      ACTIVE  ACCEPTED  REJECTED
web       127.0.0.1:8080  web       accepting       3        10         1

upstream web (round_robin): 2 of 2 eligible, 3 active, 0 waiting
ENDPOINT          STATE     WEIGHT  ACTIVE  TOTAL  FAILURES  SENT     RECEIVED
10.0.0.1:80       eligible  1            3   2000         2  5.0 MiB  12 B
unix:/run/x.sock  eligible  1            3   2000         2  5.0 MiB  12 B
"""

SESSIONS = """\
ID  LISTENER  CLIENT              UPSTREAM  ENDPOINT     PHASE  AGE    IDLE  SENT  RECEIVED  RTT         RESENT
 1  web       [2001:db8::1]:5001  web       10.0.0.1:80  relay  1m15s  1.5s  10 B  20 B      12.3ms / -  4 / -
 2  web       [2001:db8::1]:5002  web       10.0.0.1:80  relay  1m15s  1.5s  10 B  20 B      12.3ms / -  4 / -
"""


async def test_status_is_a_table(lbproxy: Lbproxy) -> None:
    assert await lbproxy("status") == Done(0, STATUS, "")


async def test_status_follows_pages(
    lbproxy: Lbproxy, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproxy.cli.client.PAGE", 1)
    operations.names = ("b", "a")
    done = await lbproxy("status", "--json")
    found = json.loads(done.out)
    assert [one["name"] for one in found["listeners"]] == ["b", "a"]
    assert [(one["name"], len(one["endpoints"])) for one in found["upstreams"]] == [("b", 2), ("a", 2)]
    assert "next" not in found["upstreams"][0]


async def test_status_shows_what_is_registered(lbproxy: Lbproxy, operations: FakeOperations) -> None:
    operations.made_known = ("web",)
    assert (
        "SERVICE  ID        STATE       CHECK     SAYS\nweb      web-8080  registered  critical  draining\n"
    ) in (await lbproxy("status")).out
    assert "SERVICE" not in (await lbproxy("status", "web")).out


async def test_status_of_one_upstream_shows_why_it_is_not_ready(
    lbproxy: Lbproxy, operations: FakeOperations
) -> None:
    operations.reasons = ("draining",)
    operations.drained.add("10.0.0.1:80")
    done = await lbproxy("status", "web")
    assert done.code == 0
    assert done.out.startswith("not ready\n  draining\n")
    assert "1 of 2 eligible" in done.out
    assert "10.0.0.1:80       drained " in done.out
    assert (await lbproxy("status", "none")).err == "lbproxy: 404 Not Found: no upstream none\n"


async def test_health_is_an_exit_code(lbproxy: Lbproxy, operations: FakeOperations) -> None:
    operations.reasons = ("draining",)  # alive all the same
    assert await lbproxy("status", "--health") == Done(0, "", "")


@pytest.mark.parametrize(
    ("arguments", "told", "out"),
    [
        (
            ["drain", "web", "10.0.0.1:80"],
            ("drain", "web", "10.0.0.1:80", None),
            "web 10.0.0.1:80: drained; 3 active",
        ),
        (
            ["drain", "web", "unix:/run/x.sock", "--deadline", "1m30s"],
            ("drain", "web", "unix:/run/x.sock", 90.0),
            "web unix:/run/x.sock: drained; 3 active",
        ),
        (["drain", "web", "--deadline", "250ms"], ("drain", "web", 0.25), "web: drained; 3 active"),
        (["drain", "--process"], ("drain",), "draining; the process ends when its sessions have ended"),
        (
            ["undrain", "web", "10.0.0.1:80"],
            ("undrain", "web", "10.0.0.1:80"),
            "web 10.0.0.1:80: takes sessions again; 3 active",
        ),
        (["undrain", "web"], ("undrain", "web"), "web: takes sessions again; 3 active"),
        (
            ["weight", "web", "10.0.0.1:80", "5"],
            ("weight", "web", "10.0.0.1:80", 5),
            "web 10.0.0.1:80: weight 5 (set)",
        ),
        (
            ["weight", "web", "10.0.0.1:80", "auto"],
            ("weight", "web", "10.0.0.1:80", None),
            "web 10.0.0.1:80: weight 1 (as configured)",
        ),
        (
            ["reload"],
            ("reload",),
            "applied\n  upstream web: endpoint added\n  runtime.relay: left as it was, needs a restart",
        ),
        (["kill", "2"], ("kill", 2), "2: killed"),
    ],
)
async def test_an_order_is_given_and_its_effect_shown(
    lbproxy: Lbproxy, operations: FakeOperations, arguments: list[str], told: tuple[Any, ...], out: str
) -> None:
    assert await lbproxy(*arguments) == Done(0, f"{out}\n", "")
    assert operations.told == [told]
    operations.live.append(2)
    as_json = await lbproxy(*arguments, "--json")
    assert as_json.code == 0
    assert isinstance(json.loads(as_json.out), dict)


async def test_sessions_are_listed_to_a_limit(lbproxy: Lbproxy, operations: FakeOperations) -> None:
    assert await lbproxy("sessions", "--limit", "2") == Done(0, SESSIONS, "the first 2 are shown (--limit)\n")
    operations.live = list(range(1, 1201))
    found = json.loads((await lbproxy("sessions", "--limit", "1100", "--json")).out)
    assert [one["id"] for one in found["items"]] == list(range(1, 1101))
    assert found["more"]
    found = json.loads((await lbproxy("sessions", "--limit", "1200", "--upstream", "web", "--json")).out)
    assert (len(found["items"]), found["more"]) == (1200, False)


async def test_killing_goes_on_after_one_that_has_ended(lbproxy: Lbproxy, operations: FakeOperations) -> None:
    done = await lbproxy("kill", "1", "77", "3")
    assert (done.code, done.out, done.err) == (
        1,
        "1: killed\n3: killed\n",
        "lbproxy: 404 Not Found: no session 77\n",
    )
    assert operations.live == [2]


async def test_an_invalid_file_is_told_line_by_line(lbproxy: Lbproxy, operations: FakeOperations) -> None:
    operations.invalid = ("a.yaml:1:1: x: no", "a.yaml:2:1: \x1b[2J")
    assert await lbproxy("reload") == Done(
        1,
        "",
        "lbproxy: 409 Conflict: the configuration is invalid\na.yaml:1:1: x: no\na.yaml:2:1: \\x1b[2J\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["drain", "web", "10.0.0.9:80"], 1, "404 Not Found: upstream web has no endpoint 10.0.0.9:80"),
        (["weight", "web", "10.0.0.1:80", "70000"], 1, "400 Bad Request: weight: from 0 to 65535"),
        (["drain"], 2, "--process"),
        (["drain", "web", "--process"], 2, "it takes no other argument"),
        (["drain", "--process", "--deadline", "3s"], 2, "it takes no other argument"),
        (["status", "--admin", "nonsense"], 2, "'nonsense' is not host:port"),
        (["status", "--token-file", "/nowhere"], 2, "--token-file"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    lbproxy: Lbproxy, operations: FakeOperations, arguments: list[str], code: int, error: str
) -> None:
    done = await lbproxy(*arguments)
    assert (done.code, done.out) == (code, "")
    assert error in done.err
    assert done.err.startswith("lbproxy: ")
    assert done.err.count("\n") == 1
    assert operations.told == []


async def test_the_token_comes_from_a_file_or_the_environment(
    operations: FakeOperations,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    async with serving(operations, AdminOptions(bind=LOOPBACK, token=Secret(value="secret"))) as server:
        admin = ("--admin", str(server.addresses[0]))
        refused = await command(capsys, "status", *admin)
        assert (refused.code, refused.err) == (
            1,
            "lbproxy: 401 Unauthorized: this needs the admin token\n",
        )
        assert (await command(capsys, "status", *admin, "--health")).code == 0
        assert (await command(capsys, "status", *admin, "--token-file", str(file))).code == 0
        monkeypatch.setenv("LBPROXY_ADMIN_TOKEN", "secret\n")
        assert (await command(capsys, "status", *admin)).code == 0
        monkeypatch.setenv("LBPROXY_ADMIN_TOKEN", "two\nlines")
        assert (await command(capsys, "status", *admin)).code == 2


async def test_a_socket_file_is_an_address(
    operations: FakeOperations, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = unix(tmp_path / "admin.sock")
    async with serving(operations, AdminOptions(bind=address)):
        assert (await command(capsys, "status", "--admin", str(address))).out == STATUS
    done = await command(capsys, "status", "--admin", str(address))
    assert (done.code, done.err) == (
        1,
        f"lbproxy: no instance answers on {address}: no such file or directory\n",
    )


async def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = await command(capsys, "status", "--health", "--admin", address)
    assert done == Done(1, "", f"lbproxy: no instance answers on {address}: connection refused\n")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>", "answered 200 OK, not in JSON: no lbproxy?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no instance answers on"),
        (b"", "no instance answers on"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n[]", "500 Oh"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "another shape"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", "another shape"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "no instance answers on"),
    ],
)
async def test_somebody_else_there_is_one_line(
    capsys: pytest.CaptureFixture[str], answer: bytes, error: str
) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done = await command(capsys, "status", "--admin", address)
    assert (done.code, done.out) == (1, "")
    assert error in done.err
    assert done.err.count("\n") == 1


def test_what_a_registry_said_of_an_endpoint_without_sessions_is_shown() -> None:
    said = {"consul-status": "maintenance: new \x1b[31mdisk", "version": "v2"}
    one = {
        "address": "10.0.0.1:80", "ineligible": ["weight_zero"], "full": False, "weight": 0, "weight_override": None, "active": 0,
        "total": 0, "connect_failures": {}, "sent_bytes": 0, "received_bytes": 0, "metadata": said,
    }  # fmt: skip
    upstream = {
        "name": "web", "strategy": "first", "kind": "endpoints", "drained": False, "endpoints_eligible": 1, "endpoints_total": 2,
        "active": 0, "waiting": 0, "sources": [], "endpoints": [one, {**one, "address": "10.0.0.2:80", "ineligible": []}],
    }  # fmt: skip
    assert tables.upstream(upstream)[4:] == ["  10.0.0.1:80: consul-status: maintenance: new \\x1b[31mdisk"]


async def test_what_sources_say_is_shown_with_nothing_that_moves_a_cursor(
    operations: FakeOperations, lbproxy: Lbproxy
) -> None:
    operations.sources = [
        source(),
        {**source(), "name": "consul_2", "kind": "consul", "says": ["stale: last answer", "now: \x1b[2J"]},
        {**source(), "error": "db: no such name", "says": ["stale: since"]},
    ]
    done = await lbproxy("status")
    assert [line for line in done.out.splitlines() if line.startswith("  ")][1:] == [
        "  source consul_2: stale: last answer",
        "    now: \\x1b[2J",
        "  source static: stale: since",
    ]


async def test_each_source_that_holds_something_is_obeyed_or_the_one_that_is_named(
    operations: FakeOperations, lbproxy: Lbproxy
) -> None:
    assert await lbproxy("obey", "web") == Done(1, "", "lbproxy: upstream web: nothing is held\n")
    operations.sources = [source()] + [
        {**source(), "name": name, "held": held} for name, held in (("consul", 3), ("dns", 0), ("etcd", 1))
    ]
    done = await lbproxy("obey", "web")
    assert done == Done(0, "web consul: 3 endpoints are let go\nweb etcd: 1 endpoints are let go\n", "")
    assert operations.told == [("obey", "web", "consul"), ("obey", "web", "etcd")]
    assert json.loads((await lbproxy("obey", "web", "etcd", "--json")).out) == {
        "items": [{"upstream": "web", "source": "etcd", "let_go": 1}]
    }
    assert await lbproxy("obey", "web", "dns") == Done(
        1, "", "lbproxy: 409 Conflict: upstream web: dns holds nothing\n"
    )
    assert (await lbproxy("obey", "web", "none")).err.startswith("lbproxy: 404 Not Found: ")
