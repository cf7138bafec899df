"""Conformance C7, D4, D7, H1, H8, N4 and bad input: what goes wrong around the program stays harmless to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import (
    Address,
    connect,
    connect_and_read,
    dial,
    echo,
    exchange,
    hold,
    hold_one,
    listen,
    read_to_end,
    receive,
    reset,
    until,
    upstreams,
)
from tests.e2e.program import config, lbproxy
from tests.patience import WITHIN_S
from tests.servers.process import serve


async def test_more_clients_than_descriptors_are_served_in_turn(start: Start) -> None:
    """H1, H8: 256 open files, 300 clients: the kernel queues those there is no room for, nothing spins, admin answers"""
    async with upstreams(hold) as (up,):
        lb = start(config([up.port]), nofile=256)
        (limit,) = [int(number) for number in re.findall(r"at most (\d+) connections", lb.stderr())]
        assert 48 <= limit < (256 - 64) // 2  # the relay's pipes are counted, too
        clients = [await dial(lb.address()) for _ in range(300)]
        await until(lambda: up.accepted == limit)
        (status,) = lb.get("/api/v1/listeners")["items"]
        assert (status["active"], status["state"], status["rejected"]) == (limit, "paused", {})
        used = lb.cpu_s()
        lb.passes(1.0)
        assert lb.cpu_s() - used < 0.1
        assert lb.ask("GET", "/healthz")[0] == 200
        assert lb.ask("GET", "/metrics")[0] == 200
        for client in clients:
            assert await receive(client, 1) == b"!"
            client.close()
        await until(lambda: up.open == 0)
        assert up.accepted == 300
        await until(lambda: len(lb.ended()) == 300)
        assert {line["reason"] for line in lb.ended()} == {"client_eof"}
        assert lb.get("/api/v1/listeners")["items"][0]["state"] == "accepting"


def test_limit_that_descriptors_do_not_allow_is_told(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port], more="runtime: {max_connections: 5000}"), nofile=256)
        assert lb.said("runtime.max_connections: 5000 do not fit into 256 open files")


async def test_listener_at_its_limit_lets_the_others_be(start: Start) -> None:
    async with upstreams(hold) as (up,):
        lb = start(
            "admin: {bind: '127.0.0.1:0'}\n"
            "listeners:\n"
            "  in: {bind: '127.0.0.1:0', upstream: up, max_connections: 2}\n"
            "  free: {bind: '127.0.0.1:0', upstream: up}\n"
            f"upstreams: {{up: {{endpoints: ['127.0.0.1:{up.port}']}}}}\n"
        )
        first, second = [await hold_one(lb.address("in")) for _ in range(2)]
        waiting = await dial(lb.address("in"))
        other = await hold_one(lb.address("free"))
        assert up.accepted == 3
        first.close()
        assert await receive(waiting, 1) == b"!"
        for client in (second, waiting, other):
            client.close()


def test_taken_port_is_named_with_its_listener_and_its_holder(tmp_path: Path) -> None:
    listening, port = listen()
    with listening:
        file = tmp_path / "taken.yaml"
        file.write_text(config([1], bind=f"127.0.0.1:{port}"))
        done = lbproxy("run", "-c", str(file))
    assert done.returncode == 1
    assert f"listener in: cannot bind 127.0.0.1:{port}" in done.stderr
    assert "Address already in use" in done.stderr
    assert Path("/proc/self/comm").read_text().strip() in done.stderr
    assert "Traceback" not in done.stderr


def test_taken_admin_port_is_named(tmp_path: Path) -> None:
    listening, port = listen()
    with listening:
        file = tmp_path / "taken.yaml"
        file.write_text(config([1], more=f"admin: {{bind: '127.0.0.1:{port}'}}"))
        done = lbproxy("run", "-c", str(file))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "admin" in done.stderr


BAD = {
    "unknown key": "listeners: {in: {bind: '127.0.0.1:0', upstrem: up}}\nupstreams: {up: {endpoints: ['127.0.0.1:1']}}\n",
    "no such upstream": "listeners: {in: {bind: '127.0.0.1:0', upstream: nix}}\nupstreams: {}\n",
    "not an address": "listeners: {in: {bind: 'here', upstream: up}}\nupstreams: {up: {endpoints: ['127.0.0.1:1']}}\n",
    "not YAML": "listeners: {in: [\n",
    "a list": "- 1\n",
    "empty": "",
    "an alias": "a: &a {}\nlisteners: *a\n",
    "a tag": "listeners: !!python/object/apply:os.getpid []\n",
    "twice": "listeners: {}\nlisteners: {}\nupstreams: {}\n",
    "binary": "\x00\x01\x7f\n",
    "own listener": "listeners: {in: {bind: '127.0.0.1:47001', upstream: up}}\n"
    "upstreams: {up: {endpoints: ['127.0.0.1:47001']}}\n",
}


@pytest.mark.parametrize(
    ("command", "text"),
    [*(("check", text) for text in BAD.values()), ("run", BAD["unknown key"]), ("run", BAD["not YAML"])],
    ids=[*BAD, "run: unknown key", "run: not YAML"],
)
def test_invalid_configuration_is_an_error_and_no_traceback(command: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = lbproxy(command, "-c", str(file))
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert str(file) in said
    assert not any(character in said for character in "\x00\x1b")


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_missing_configuration_is_an_error_and_no_traceback(path: str, tmp_path: Path) -> None:
    done = lbproxy("run", "-c", str(tmp_path / path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


async def test_check_leaves_the_running_instance_alone(start: Start, tmp_path: Path) -> None:
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        file = tmp_path / "same.yaml"
        file.write_text(config([up.port], bind=f"127.0.0.1:{lb.address()[1]}"))
        before = lb.fds()
        done = lbproxy("check", "-c", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        with_ports = lbproxy("check", "--bind", "-c", str(file))
        assert with_ports.returncode != 0
        assert "Traceback" not in with_ports.stderr
        assert await exchange(lb.address()) == b"x"
        await until(lambda: lb.fds() <= before)


async def test_reload_of_an_invalid_file_changes_nothing_and_says_why(start: Start) -> None:
    """K2"""
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        lb.write("listeners: {in: {bind: '127.0.0.1:0', upstream: nix}}\nupstreams: {}\n")
        status, body = lb.ask("POST", "/api/v1/reload")
        problem = json.loads(body)
        assert 400 <= status < 500
        assert problem["status"] == status
        assert any("nix" in line for line in problem["errors"])
        assert await exchange(lb.address()) == b"x"
        assert lb.total("lbproxy_config_last_reload_successful") == 0
        assert lb.total("lbproxy_config_reloads_total", result="invalid") == 1


GARBAGE = bytes(range(256)) * 64


async def misbehave(address: Address, number: int) -> None:
    """A client that sends garbage, nothing, or a reset, early or late."""
    client = await dial(address)
    with client:
        match number % 6:
            case 0:
                await asyncio.get_running_loop().sock_sendall(client, GARBAGE)
                await receive(client)
            case 1:
                pass
            case 2:
                reset(client)
            case 3:
                await asyncio.get_running_loop().sock_sendall(client, GARBAGE)
                reset(client)
            case 4:
                client.shutdown(socket.SHUT_WR)
                await receive(client)
            case 5:
                client.send(b"!", socket.MSG_OOB)
                await receive(client)
                reset(client)


async def test_clients_that_misbehave_leave_nothing_behind(start: Start) -> None:
    """C7, C8, N4: 300 of them; descriptors, sessions and gauges are back to where they were"""
    async with upstreams(echo) as (up,):
        lb = start(config([up.port]))
        await exchange(lb.address())
        await until(lambda: lb.active() == 0)
        before = lb.sockets()
        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(misbehave(lb.address(), number), name="client")
        await until(lambda: up.open == 0 and lb.active() == 0)
        await until(lambda: lb.sockets() <= before)
        assert lb.sessions() == []
        for gauge in (
            "lbproxy_listener_connections_active",
            "lbproxy_endpoint_connections_active",
            "lbproxy_relay_pending_bytes",
            "lbproxy_relay_sessions_active",
        ):
            assert lb.total(gauge) == 0, gauge
        await until(lambda: len(lb.ended()) == 301)
        assert not [line for line in lb.lines() if line.get("level") == "error"]


def test_upstream_that_cannot_be_reached_is_told_in_log_and_metric(start: Start) -> None:
    """D2"""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        lb = start(config([dead.getsockname()[1]]))
        assert connect_and_read(lb.address()) == (0, "RST")
        lb.until(lambda: len(lb.ended()) == 1)
        (line,) = lb.ended()
        assert (line["reason"], line["phase"], line["errno"], line["attempts"]) == (
            "connect_refused",
            "connect",
            "ECONNREFUSED",
            3,
        )
        assert lb.total("lbproxy_connections_ended_total", reason="connect_refused") == 1
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="refused") == 3


def full(pipe: int) -> bool:
    """Whether the pipe that this is the writing end of takes no more (a page less than its last byte, perhaps)."""
    return not select.select([], [pipe], [], 0)[1]


@pytest.mark.slow
async def test_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """A full pipe at its stderr: connections, admin interface, reload and SIGTERM go on as ever"""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with upstreams(echo) as (up,):
        text = config([up.port], bind="127.0.0.1:@front@", more="admin: {bind: '127.0.0.1:@admin@'}")
        command = ["sh", "-c", 'exec "$@" 2>"$0"', str(fifo)]
        command += [sys.executable, "-m", "lbproxy", "run", "-c", "lbproxy.yaml"]
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            with serve(command, tmp_path / "run", config=text, config_file="lbproxy.yaml") as server:
                address = ("127.0.0.1", server.ports["front"])
                admin = ("127.0.0.1", server.ports["admin"])
                for _ in range(300):  # some 400 bytes each, where a pipe holds 64 KiB
                    assert await exchange(address) == b"x"
                await until(lambda: full(writing))
                # An event line each: more than the last page of the pipe has room for.
                for _ in range(80):
                    request = b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                    answer = await exchange(admin, request)
                    assert answer.startswith(b"HTTP/1.1 200"), answer
                assert await exchange(address) == b"x"
                await until(lambda: up.accepted == 301 and up.open == 0)
                server.signal(signal.SIGTERM)
                assert server.wait(WITHIN_S) == 0
        finally:
            os.close(reading)
            os.close(writing)


MISUSE = {
    "no such path": ("GET", "/api/v1/nothing", None, {}, 404),
    "wrong method": ("POST", "/api/v1/listeners", None, {}, 405),
    "no such upstream": ("GET", "/api/v1/upstreams/nix", None, {}, 404),
    "no such endpoint": ("POST", "/api/v1/upstreams/up/endpoints/10.0.0.1%3A1/drain", None, {}, 404),
    "no such session": ("DELETE", "/api/v1/sessions/999999", None, {}, 404),
    "a session that is no number": ("DELETE", "/api/v1/sessions/x", None, {}, 400),
    "body that is no JSON": ("POST", "/api/v1/upstreams/up/drain", b"{", {}, 400),
    "body of another type": (
        "POST",
        "/api/v1/upstreams/up/drain",
        b"a=1",
        {"Content-Type": "text/plain"},
        415,
    ),
    "unknown key": ("POST", "/api/v1/upstreams/up/drain", b'{"dedline_s": 1}', {}, 400),
    "negative time": ("POST", "/api/v1/upstreams/up/drain", b'{"deadline_s": -1}', {}, 400),
    "not a number": ("POST", "/api/v1/upstreams/up/drain", b'{"deadline_s": NaN}', {}, 400),
    "too long": ("POST", "/api/v1/upstreams/up/drain", b" " * 70_000, {}, 413),
    "page too large": ("GET", "/api/v1/sessions?limit=100000", None, {}, 400),
    "foreign host": ("GET", "/api/v1/listeners", None, {"Host": "evil.example"}, 403),
    "foreign origin": ("POST", "/api/v1/reload", None, {"Origin": "http://evil.example"}, 403),
}


def test_misuse_of_the_admin_interface_is_answered_with_a_problem(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        for what, (method, path, body, headers, wanted) in MISUSE.items():
            status, answer = lb.ask(method, path, body, headers)
            assert status == wanted, (what, status, answer)
            assert json.loads(answer)["status"] == wanted, what
        status, answer = lb.ask(
            "POST", f"/api/v1/upstreams/up/endpoints/127.0.0.1%3A{port}/weight", b'{"weight": -1}'
        )
        assert status == 400, answer
        with connect((lb.admin.partition(":")[0], int(lb.admin.rpartition(":")[2]))) as raw:
            raw.sendall(GARBAGE + b"\r\n\r\n")
            count, _ = read_to_end(raw)
            assert count
        assert lb.ready()
