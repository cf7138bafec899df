"""Conformance N1, N2, N5, N7: the metrics page and the access log of a live instance."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import (
    accept,
    connect,
    dial,
    echo,
    exchange,
    listen,
    read_to_end,
    receive,
    reset,
    until,
    upstreams,
)
from tests.e2e.program import Program, config, lbproxy
from tests.servers.programs import require

FIELDS = [
    "ts",
    "event",
    "session",
    "listener",
    "client",
    "client_port",
    "upstream",
    "endpoint",
    "attempts",
    "sent_bytes",
    "received_bytes",
    "connect_ms",
    "first_byte_ms",
    "duration_ms",
    "reason",
    "phase",
    "errno",
]


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (0, 1), (65_537, 300_001), (1 << 20, 7)])
def test_counted_bytes_are_those_on_the_wire(start: Start, up: int, down: int) -> None:
    """N1: while the session lives, and when it has ended"""
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        with connect(lb.address()) as client, accept(listening) as upstream:
            for sender, receiver, size in ((client, upstream, up), (upstream, client, down)):
                sent = got = 0
                while got < size:
                    sent += sender.send(bytes(min(65_536, size - sent))) if sent < size else 0
                    got += len(receiver.recv(65_536))
            lb.until(lambda: (counted(lb, "sent"), counted(lb, "received")) == (up, down))
            (session,) = lb.sessions()
            assert (session["sent_bytes"], session["received_bytes"]) == (up, down)
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(upstream) == (0, "FIN")
        lb.until(lambda: len(lb.ended()) == 1)
        (line,) = lb.ended()
        assert (line["sent_bytes"], line["received_bytes"]) == (up, down)
        assert (counted(lb, "sent"), counted(lb, "received")) == (up, down)


def counted(lb: Program, direction: str) -> int:
    return int(lb.total(f"lbproxy_endpoint_{direction}_bytes_total"))


def test_every_close_has_exactly_one_reason(start: Start) -> None:
    """N2: the listener's count, the counts by reason and the log agree, session by session"""
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        wanted = {}
        for who, what in [(0, "eof"), (1, "eof"), (0, "reset"), (1, "reset"), (0, "killed")] * 3:
            with contextlib.ExitStack() as open_:
                peers = open_.enter_context(connect(lb.address())), open_.enter_context(accept(listening))
                for peer in peers:
                    peer.sendall(b"!")
                for peer in peers:
                    assert peer.recv(1) == b"!"
                (session,) = lb.sessions()
                if what == "killed":
                    assert lb.ask("DELETE", f"/api/v1/sessions/{session['id']}")[0] == 200
                    reason = "killed"
                else:
                    reason = f"{('client', 'upstream')[who]}_{what}"
                    (reset if what == "reset" else socket.socket.close)(peers[who])
                read_to_end(peers[1 - who])
            wanted[session["id"]] = reason
            lb.until(lambda: lb.active() == 0)
        lb.until(lambda: len(lb.ended()) == len(wanted))
        assert {line["session"]: line["reason"] for line in lb.ended()} == wanted
        for reason in set(wanted.values()):
            assert lb.total("lbproxy_connections_ended_total", reason=reason) == 3
        assert lb.total("lbproxy_connections_ended_total") == len(wanted)
        assert lb.total("lbproxy_listener_connections_total") == len(wanted)
        assert lb.total("lbproxy_connection_duration_seconds_count") == len(wanted)


@pytest.mark.foreign
async def test_checker_of_prometheus_says_nothing(start: Start) -> None:
    promtool = require("promtool")
    async with upstreams(echo, echo) as ups:
        lb = start(config([up.port for up in ups], upstream="strategy: least_connection"))
        for _ in range(20):
            await exchange(lb.address())
        with await dial(lb.address()):
            status, page = lb.ask("GET", "/metrics")
    assert (status, page.count(b"lbproxy_endpoint_connections_total{")) == (200, 2)
    done = subprocess.run(  # noqa: ASYNC221  nothing else is going on
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_openmetrics_is_served_to_who_asks_for_it(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        status, page = lb.ask("GET", "/metrics", headers=wanted)
        assert (status, page.endswith(b"# EOF\n")) == (200, True)


async def test_access_log_is_a_json_object_a_line(start: Start) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        for _ in range(20):
            await exchange(lb.address())
        await until(lambda: len(lb.ended()) == 20)
        for line in lb.ended():
            assert list(line) == FIELDS
            assert (line["listener"], line["upstream"], line["client"]) == ("in", "up", "127.0.0.1")
            assert line["endpoint"] == f"127.0.0.1:{up.port}"
            assert line["connect_ms"] <= line["duration_ms"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
        only_lines(lb.log)


async def test_access_log_as_text_is_a_line_of_words(start: Start) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port], more="log: {format: text}"))
        for _ in range(5):
            await exchange(lb.address())
        await until(lambda: lb.stderr().count(" event=end ") == 5)
        lines = [line for line in lb.stderr().splitlines() if " event=end " in line]
        for line in lines:
            assert [word.partition("=")[0] for word in line.split(" ")] == FIELDS
        only_lines(lb.log)


async def test_sessions_without_a_byte_can_be_left_out(start: Start) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port], more="log: {access: {skip_empty: true}}"))
        for _ in range(3):
            (await dial(lb.address())).close()
        await exchange(lb.address())
        await until(lambda: lb.total("lbproxy_connections_ended_total") == 4)
        await until(lambda: len(lb.ended()) == 1)


def only_lines(log: Path) -> None:
    """Nothing in a log that moves a terminal's cursor or looks like another line."""
    assert not re.search(rb"[^\n\x20-\x7e]", log.read_bytes())


async def scrape(address: tuple[str, int]) -> int:
    """One GET /metrics; the length of what came."""
    with await dial(address) as client:
        await asyncio.get_running_loop().sock_sendall(
            client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        length = 0
        while part := await receive(client):
            length += len(part)
        return length


async def test_scrapes_do_not_hold_up_the_relay(start: Start) -> None:
    """N5: a page with 1,000 endpoints, asked for all the time; the bound is for a hang, not a measure"""
    async with upstreams(echo) as (up,):
        ballast = ", ".join(f"'127.1.{n // 250}.{n % 250}:9'" for n in range(1000))
        text = config([up.port]) + f"  ballast: {{endpoints: [{ballast}]}}\n"
        text = (
            text.replace("listeners: {", "listeners: {never: {bind: '127.0.0.1:0', upstream: ballast}, ")
            .replace("upstreams: {up:", "upstreams:\n  up:")
            .replace("}}\n  ballast", "}\n  ballast")
        )
        lb = start(text)
        admin = ("127.0.0.1", int(lb.admin.rpartition(":")[2]))
        scraped, over = 0, asyncio.Event()

        async def scraper() -> None:
            nonlocal scraped
            while not over.is_set():
                assert await scrape(admin) > 100_000
                scraped += 1

        loop = asyncio.get_running_loop()
        took: list[float] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(scraper(), name="scraper")
            with await dial(lb.address()) as client:
                while scraped < 5 or len(took) < 100:
                    began = loop.time()
                    await loop.sock_sendall(client, b"x")
                    assert await receive(client) == b"x"
                    took.append(loop.time() - began)
            over.set()
        assert sorted(took)[len(took) * 99 // 100] < 2.0


SECRET = "correct-horse-battery-staple-4711"


@pytest.mark.parametrize("source", ["file", "environment"])
def test_secrets_are_nowhere_to_be_read(start: Start, tmp_path: Path, source: str) -> None:
    """N7: not in the configuration that is shown, not in the log, not in `ps`"""
    listening, port = listen()
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    token = f"{{file: {file}}}" if source == "file" else "'${LBPROXY_TEST_TOKEN}'"
    with listening:
        lb = start(
            config([port], more=f"admin: {{bind: '127.0.0.1:0', token: {token}}}\nlog: {{level: debug}}"),
            token=SECRET,
            environ={"LBPROXY_TEST_TOKEN": SECRET},
        )
        shown = lb.get("/api/v1/config")
        assert SECRET not in json.dumps(shown)
        assert "token" in shown["admin"]
        assert lb.ask("GET", "/api/v1/config", headers={})[0] == 401
        assert lb.ask("GET", "/api/v1/config", headers={"Authorization": "Bearer wrong"})[0] == 401
        for public in ("/metrics", "/healthz", "/readyz"):
            status, body = lb.ask("GET", public, headers={})
            assert (status, SECRET.encode() in body) == (200, False)
        lb.write("listeners: {in: {bind: nowhere, upstream: up}}")
        assert lb.ask("POST", "/api/v1/reload")[0] in range(400, 500)
        assert SECRET not in lb.stderr()
        assert SECRET not in Path(f"/proc/{lb.pid}/cmdline").read_text()


def test_page_for_browsers_is_served(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        status, page = lb.ask("GET", "/")
        assert status == 200
        assert b"<html" in page
        assert b"lbproxy" in page


def test_sessions_tell_round_trip_times_and_what_was_sent_again(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        with connect(lb.address()) as client, accept(listening) as upstream:
            client.sendall(b"x")
            assert upstream.recv(1) == b"x"
            (session,) = lb.sessions()
            for leg in ("client", "upstream"):
                assert 0 < session[f"{leg}_rtt_s"] < 1, session
                assert session[f"{leg}_retransmits"] == 0, session
            done = lbproxy("sessions", "--admin", lb.admin)
            head, line = done.stdout.splitlines()
            assert head.split()[-2:] == ["RTT", "RESENT"]
            assert line.endswith("0 / 0")


def test_upstream_without_an_endpoint_is_told_until_it_is_gone_from_the_configuration(start: Start) -> None:
    """Series of endpoints may be limited, and end with a registry's answer; this one stays to alert on"""
    listening, port = listen()
    with listening:
        more = "metrics: {endpoints: none}"
        lb = start(config([port, f"address: '127.0.0.1:{port + 1}', weight: 0"], more=more))
        assert lb.total("lbproxy_upstream_endpoints_eligible", upstream="up") == 1
        lb.order("up", port, "drain")
        assert lb.total("lbproxy_upstream_endpoints_eligible", upstream="up") == 0
        lb.write(
            config([port], more=more).replace("upstream: up", "upstream: other").replace("{up:", "{other:")
        )
        lb.post("/api/v1/reload")
        found = {labels for name, labels in lb.metrics() if name == "lbproxy_upstream_endpoints_eligible"}
        assert found == {frozenset({("upstream", "other")})}
