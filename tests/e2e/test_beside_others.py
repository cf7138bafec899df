"""The same scenario through lbproxy, HAProxy and nginx: lbproxy is never worse than HAProxy.

Conformance B1, B2, B9, C1, C2, C3, D2, E1, G1, and the table of differences in one place. What the others do was
measured with HAProxy 2.6 and nginx 1.22; only lbproxy is held to an exact answer, and to nothing less than HAProxy gives.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, connect_and_read, listen, read_to_end, reset
from tests.e2e.program import config
from tests.servers.fixtures import StartServer

Seen = tuple[int, str]
"""Bytes that arrived, and how the stream ended: FIN, RST, or stalled."""

MIB: Final = 1 << 20
QUIET_S: Final = 0.2
STALLED_S: Final = 20.0

HAPROXY: Final = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 0
listen front
    bind 127.0.0.1:@front@
    server one 127.0.0.1:{port}
"""
NGINX: Final = "server {{ listen 127.0.0.1:@front@; proxy_pass 127.0.0.1:{port}; }}"

Scenario = Callable[[socket.socket, socket.socket], Seen]
"""Acts as the client and as the upstream it was connected to; returns what the one that matters saw."""


def late_answer(client: socket.socket, upstream: socket.socket) -> Seen:
    """B1: the client has finished; the answer comes after that."""
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    assert upstream.recv(7, socket.MSG_WAITALL) == b"request"
    assert upstream.recv(1) == b""
    with contextlib.suppress(ConnectionError):
        upstream.sendall(b"late response")
    upstream.close()
    return read_to_end(client)


def late_upload(client: socket.socket, upstream: socket.socket) -> Seen:
    """B2: the upstream has finished; the upload comes after that."""
    upstream.sendall(b"hello")
    upstream.shutdown(socket.SHUT_WR)
    assert client.recv(5, socket.MSG_WAITALL) == b"hello"
    assert client.recv(1) == b""
    with contextlib.suppress(ConnectionError):
        client.sendall(b"late upload")
    client.close()
    return read_to_end(upstream)


def client_resets(client: socket.socket, upstream: socket.socket) -> Seen:
    """C1"""
    client.sendall(b"x")
    assert upstream.recv(1) == b"x"
    reset(client)
    return read_to_end(upstream)


def upstream_resets(client: socket.socket, upstream: socket.socket) -> Seen:
    """C2"""
    upstream.sendall(b"x")
    assert client.recv(1) == b"x"
    reset(upstream)
    return read_to_end(client)


def upstream_resets_after_an_answer(client: socket.socket, upstream: socket.socket) -> Seen:
    """C3: what the proxy had read before the RST arrives first"""
    upstream.sendall(bytes(200_000))
    assert select.select([client], [], [], STALLED_S)[0]
    got = 0
    while got < 200_000:
        got += len(client.recv(65536))
    reset(upstream)
    more, end = read_to_end(client)
    return got + more, end


def unread_request(client: socket.socket, upstream: socket.socket) -> Seen:
    """B9: the upstream answers and closes without having read the request (which makes its close an RST)"""
    client.sendall(b"r" * 50_000)
    assert upstream.recv(10, socket.MSG_WAITALL) == b"r" * 10
    upstream.sendall(bytes(200_000))
    upstream.shutdown(socket.SHUT_WR)
    seen = read_to_end(client)
    upstream.close()
    return seen


def urgent_byte(client: socket.socket, upstream: socket.socket) -> Seen:
    """G1: never a stall; the urgent byte may arrive within the stream"""
    client.sendall(b"abc")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"def")
    client.sendall(b"ghi")
    client.shutdown(socket.SHUT_WR)
    return read_to_end(upstream)


def both_finish_at_once(client: socket.socket, upstream: socket.socket) -> Seen:
    """B6"""
    client.sendall(b"a")
    assert upstream.recv(1) == b"a"
    client.shutdown(socket.SHUT_WR)
    upstream.shutdown(socket.SHUT_WR)
    _, end = read_to_end(upstream)
    count, other = read_to_end(client)
    return count, end if end == other else f"{end} and {other}"


def large_answer_to_a_reader_that_waits(client: socket.socket, upstream: socket.socket) -> Seen:
    """B4, smaller: FIN only behind the last byte"""
    upstream.settimeout(None)
    upstream.setblocking(False)
    view, sent = memoryview(bytes(16 * MIB)), 0
    # First as much as goes without a reader, then the rest while it reads.
    while select.select([], [upstream], [], QUIET_S)[1]:
        sent += upstream.send(view[sent : sent + 65536])
        if sent == len(view):
            break
    got = 0
    client.setblocking(False)
    while sent < len(view):
        readable, writable, _ = select.select([client], [upstream], [], STALLED_S)
        assert readable or writable, f"stalled after {sent} bytes"
        if readable:
            got += len(client.recv(1 << 18))
        if writable:
            sent += upstream.send(view[sent : sent + 65536])
    upstream.shutdown(socket.SHUT_WR)
    client.settimeout(STALLED_S)
    more, end = read_to_end(client)
    return got + more, end


@dataclass(frozen=True)
class Case:
    """What lbproxy must give (one of `wanted`)."""

    scenario: Scenario
    wanted: tuple[Seen, ...]


CASES: Final = [
    Case(late_answer, ((13, "FIN"),)),
    Case(late_upload, ((11, "FIN"),)),
    Case(client_resets, ((0, "RST"),)),
    Case(upstream_resets, ((0, "RST"),)),
    Case(upstream_resets_after_an_answer, ((200_000, "RST"),)),
    Case(unread_request, ((200_000, "FIN"),)),
    Case(urgent_byte, ((10, "FIN"), (9, "FIN"))),
    Case(both_finish_at_once, ((0, "FIN"),)),
    Case(large_answer_to_a_reader_that_waits, ((16 * MIB, "FIN"),)),
]


@contextlib.contextmanager
def pair(front: tuple[str, int], listening: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    with connect(front) as client, accept(listening) as upstream:
        client.settimeout(STALLED_S)
        upstream.settimeout(STALLED_S)
        for peer in (client, upstream):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client, upstream


def attempt(front: tuple[str, int], listening: socket.socket, scenario: Scenario) -> Seen:
    """What comes of a scenario; a proxy that breaks it off in the middle has delivered nothing."""
    with pair(front, listening) as (client, upstream):
        try:
            return scenario(client, upstream)
        except (AssertionError, OSError):
            return 0, "broken"


def fronts(
    port: int, start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> dict[str, tuple[str, int]]:
    """The three proxies before one upstream."""
    return {
        "lbproxy": start(config([port])).address(),
        "haproxy": ("127.0.0.1", haproxy(HAPROXY.format(port=port)).port),
        "nginx": ("127.0.0.1", nginx_stream(NGINX.format(port=port)).port),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.scenario.__name__)
def test_never_worse_than_haproxy(
    case: Case, start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> None:
    listening, port = listen()
    with listening:
        seen = {
            name: attempt(front, listening, case.scenario)
            for name, front in fronts(port, start, haproxy, nginx_stream).items()
        }
    assert seen["lbproxy"] in case.wanted, seen
    assert seen["lbproxy"][0] >= seen["haproxy"][0], seen


def absorbed(front: tuple[str, int], listening: socket.socket, writer: int) -> int:
    """How much goes in before a peer that is not read from must wait: the client (0) or the upstream (1)."""
    with pair(front, listening) as peers:
        peers[writer].setblocking(False)
        data, sent = bytes(1 << 18), 0
        while sent < 64 * MIB and select.select([], [peers[writer]], [], QUIET_S)[1]:
            with contextlib.suppress(BlockingIOError):
                sent += peers[writer].send(data)
        return sent


@pytest.mark.parametrize("writer", [0, 1], ids=["client writes", "upstream writes"])
def test_slow_reader_makes_the_writer_wait_as_early_as_with_the_others(
    writer: int, start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> None:
    """E1, E2: at most 10 MiB, most of which are the kernel's"""
    listening, port = listen()
    with listening:
        taken = {
            name: absorbed(front, listening, writer)
            for name, front in fronts(port, start, haproxy, nginx_stream).items()
        }
    assert 0 < taken["lbproxy"] <= 10 * MIB, taken


def test_urgent_byte_in_a_long_stream_loses_nothing(
    start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> None:
    """G2: 13,107,200 bytes, an urgent one, 13,107,200 more"""
    half = 13_107_200

    def through(front: tuple[str, int], listening: socket.socket) -> Seen:
        with pair(front, listening) as (client, upstream):
            client.setblocking(False)
            upstream.setblocking(False)
            return _pump(client, upstream, [(half, 0), (1, socket.MSG_OOB), (half, 0)])

    listening, port = listen()
    with listening:
        seen = {
            name: through(front, listening)
            for name, front in fronts(port, start, haproxy, nginx_stream).items()
        }
    assert seen["lbproxy"] in {(2 * half + 1, "FIN"), (2 * half, "FIN")}, seen
    assert seen["lbproxy"][0] >= seen["haproxy"][0], seen


def _pump(client: socket.socket, upstream: socket.socket, pieces: list[tuple[int, int]]) -> Seen:
    """Send the pieces with their flags, then a FIN, while the other side reads."""
    chunk, got, finished = bytes(1 << 18), 0, False
    while True:
        readable, writable, _ = select.select([upstream], [] if finished else [client], [], STALLED_S)
        if not readable and not writable:
            return got, "stalled"
        if readable:
            try:
                part = upstream.recv(1 << 18)
            except ConnectionResetError:
                return got, "RST"
            if not part:
                return got, "FIN"
            got += len(part)
        if writable and not finished:
            size, flags = pieces[0]
            sent = client.send(chunk[:size], flags)
            pieces[0] = (size - sent, flags)
            if sent == size:
                del pieces[0]
            if not pieces:
                client.shutdown(socket.SHUT_WR)
                finished = True


def test_endpoint_that_refuses_ends_the_client_in_time(
    start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> None:
    """D2: nothing else to try, so the client is told within the budget; lbproxy says so by an RST"""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        seen = {}
        for name, front in fronts(dead.getsockname()[1], start, haproxy, nginx_stream).items():
            seen[name] = connect_and_read(front)
    assert seen["lbproxy"] == (0, "RST"), seen


def test_answer_survives_a_close_with_the_request_unread(
    start: Start, haproxy: StartServer, nginx_stream: StartServer
) -> None:
    """B9 as it happens in the wild: close() at once, so that the upstream's kernel resets, and throws away what did not fit
    into the proxy's window yet. For the others how much arrives is a race between that and their reading."""
    rounds = 10
    listening, port = listen()
    with listening:
        got: dict[str, list[int]] = {}
        for name, front in fronts(port, start, haproxy, nginx_stream).items():
            got[name] = []
            for _ in range(rounds):
                with pair(front, listening) as (client, upstream):
                    client.sendall(b"r" * 50_000)
                    assert upstream.recv(10, socket.MSG_WAITALL) == b"r" * 10
                    upstream.sendall(bytes(200_000))
                    upstream.close()
                    got[name].append(read_to_end(client)[0])
    assert got["lbproxy"] == [200_000] * rounds, got


def test_answer_cut_short_by_a_reset_never_looks_whole(start: Start) -> None:
    """B9, C3: more than any window holds; what the upstream's kernel threw away is told to the client by an RST"""
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        with pair(lb.address(), listening) as (client, upstream):
            client.sendall(b"r" * 50_000)
            assert upstream.recv(10, socket.MSG_WAITALL) == b"r" * 10
            upstream.setblocking(False)
            sent = 0
            while select.select([], [upstream], [], QUIET_S)[1]:
                sent += upstream.send(bytes(1 << 18))
            upstream.close()
            count, end = read_to_end(client)
        assert (0 < count < sent, end) == (True, "RST")
