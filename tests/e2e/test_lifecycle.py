"""Conformance C9, K5 to K9: from the first connection to the last, with the signals and sockets a service manager uses."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, echo, listen, read_to_end, until, upstreams
from tests.e2e.program import config, lbproxy
from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort

QUEUED = 20
BACKLOG = 8
BURST_WITHIN_S = 30.0  # ten times what the case allows


def test_sigterm_serves_what_is_queued_and_lets_the_living_finish(start: Start) -> None:
    """K6"""
    listening, port = listen()
    with listening, ExitStack() as open_:
        lb = start(config([port]))
        address = lb.address()
        live = open_.enter_context(connect(address))
        upstream = open_.enter_context(accept(listening))
        # It stands still while they come, so that all of them are in its accept queue when it learns of the signal.
        lb.signal(signal.SIGSTOP)
        queued = [open_.enter_context(connect(address)) for _ in range(QUEUED)]
        lb.signal(signal.SIGTERM)
        lb.signal(signal.SIGCONT)
        for _ in queued:
            with accept(listening) as other:
                other.sendall(b"!")
        for client in queued:
            assert read_to_end(client) == (1, "FIN")
            client.close()
        lb.until(lambda: lb.get("/api/v1/listeners")["items"][0]["state"] == "draining")
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        live.sendall(b"still here")
        assert upstream.recv(10, socket.MSG_WAITALL) == b"still here"
        assert lb.process.poll() is None
        live.close()
        upstream.close()
        assert lb.wait() == 0
        reasons = [line["reason"] for line in lb.ended()]
        assert len(reasons) == QUEUED + 1
        assert set(reasons) <= {"client_eof", "upstream_eof"}
        assert lb.said("drained: every session ended by itself")


def test_drain_deadline_cuts_what_is_left(start: Start) -> None:
    """C9, K9: FIN for an idle session, RST where bytes could not be delivered; their number is logged and the exit is a good one"""
    listening, port = listen()
    with listening, ExitStack() as open_:
        lb = start(config([port], more="runtime: {drain_timeout: 300ms}"))
        idle = open_.enter_context(connect(lb.address()))
        idle_upstream = open_.enter_context(accept(listening))
        stuck = open_.enter_context(connect(lb.address()))
        stuck_upstream = open_.enter_context(accept(listening))
        stuck_upstream.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stuck_upstream.sendall(bytes(64 << 20))  # until nothing more goes in: its client does not read
        lb.signal(signal.SIGTERM)
        assert lb.wait() == 0
        assert read_to_end(idle) == (0, "FIN")
        assert read_to_end(idle_upstream) == (0, "FIN")
        stuck_upstream.settimeout(WITHIN_S)
        assert read_to_end(stuck)[1] == "RST"
        assert read_to_end(stuck_upstream)[1] == "RST"
        assert lb.said("drained: 2 sessions cut")
        assert [line["reason"] for line in lb.ended()] == ["drained", "drained"]


def test_second_sigterm_ends_it_at_once(start: Start) -> None:
    """K7"""
    listening, port = listen()
    with listening:
        lb = start(config([port], more="runtime: {drain_timeout: 1h}"))
        with connect(lb.address()) as client, accept(listening) as upstream:
            lb.signal(signal.SIGTERM)
            lb.until(lambda: lb.said("draining: 1 sessions"))
            assert not lb.ready()
            lb.signal(signal.SIGTERM)
            assert lb.wait() == 0
            assert read_to_end(client) == (0, "FIN")
            assert read_to_end(upstream) == (0, "FIN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("event_loop", ["auto", "asyncio"])
def test_signals_that_go_on_to_the_last_moment_leave_the_exit_status_alone(
    start: Start, number: signal.Signals, event_loop: str
) -> None:
    """K7: whoever holds Ctrl-C down, or a manager without patience"""
    listening, port = listen()
    with listening:
        lb = start(config([port], more=f"runtime: {{event_loop: {event_loop}}}"))
        while not lb.ends_within(0.002):
            lb.signal(number)
            lb.signal(signal.SIGHUP)
        assert lb.wait() == 0
        assert lb.stderr().count("draining: ") == 1


def test_api_drain_is_as_good_as_a_signal(start: Start) -> None:
    listening, port = listen()
    with listening:
        lb = start(config([port]))
        assert lb.post("/api/v1/drain") == {"draining": True}
        assert lb.wait() == 0


def test_killed_program_listens_again_at_once(start: Start) -> None:
    """K8: with connections alive and in TIME_WAIT on its port"""
    listening, port = listen()
    with listening, ReservedPort() as own, ExitStack() as open_:
        text = config([port], bind=f"127.0.0.1:{own.number}")
        for _ in range(3):
            lb = start(text)
            client = open_.enter_context(connect(lb.address()))
            upstream = open_.enter_context(accept(listening))
            with connect(lb.address()), accept(listening) as other:
                other.close()
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
            lb.signal(signal.SIGKILL)
            assert lb.wait() == -signal.SIGKILL
            assert read_to_end(client)[0] == 0


def test_second_instance_that_cannot_start_leaves_the_first_alone(start: Start, tmp_path: Path) -> None:
    """K5: it fails before it is ready; sessions, the accept queue and the socket file stay with the first"""
    listening, port = listen()
    with listening, ExitStack() as open_:
        inside = tmp_path / "in.sock"
        lb = start(config([port], bind=f"unix:{inside}", listener="max_connections: 1"))

        def client() -> socket.socket:
            made = open_.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(WITHIN_S)
            made.connect(str(inside))
            return made

        live = client()
        upstream = open_.enter_context(accept(listening))
        lb.until(lambda: lb.get("/api/v1/listeners")["items"][0]["state"] == "paused")
        queued = client()
        done = lbproxy("run", "-c", str(lb.file))
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert f"listener in: cannot bind unix:{inside}: Address already in use" in done.stderr
        upstream.sendall(b"still here")
        assert live.recv(10, socket.MSG_WAITALL) == b"still here"
        live.close()
        upstream.close()
        for waiting in (queued, client()):
            with accept(listening) as other:
                other.sendall(b"!")
                assert waiting.recv(1) == b"!"
            waiting.close()


@pytest.mark.timeout(60)
async def test_burst_that_the_accept_queue_cannot_hold_is_served_all_the_same(start: Start) -> None:
    """H4: a queue of 8, three times as many at once while the program stands still; the kernel repeats the SYN of those who find no
    place, and each second as many as the queue holds come in"""

    async def ask() -> bytes:
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, address)
            await loop.sock_sendall(client, b"x")
            return await loop.sock_recv(client, 1)

    loop = asyncio.get_running_loop()
    async with upstreams(echo) as (up,):
        lb = start(config([up.port], listener=f"backlog: {BACKLOG}"))
        address = lb.address()
        lb.signal(signal.SIGSTOP)
        async with asyncio.timeout(BURST_WITHIN_S), asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(), name="client") for _ in range(3 * BACKLOG)]
            await asyncio.sleep(0)  # all of them have sent a SYN
            lb.signal(signal.SIGCONT)
        assert [each.result() for each in asked] == [b"x"] * len(asked)
        await until(lambda: len(lb.ended()) == len(asked))
        assert {line["reason"] for line in lb.ended()} == {"client_eof"}


def test_readiness_is_off_before_the_listeners_close(start: Start) -> None:
    """`drain_delay`: a balancer in front sees 503 and goes elsewhere, and whoever still comes is served"""
    listening, port = listen()
    with listening:
        lb = start(config([port], more="runtime: {drain_delay: 5s}"))
        assert lb.ready()
        lb.signal(signal.SIGTERM)
        lb.until(lambda: not lb.ready())
        status, body = lb.ask("GET", "/readyz")
        assert (status, b"draining" in body) == (503, True)
        assert lb.ask("GET", "/healthz")[0] == 200
        with connect(lb.address()) as client, accept(listening) as upstream:
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
        assert lb.wait() == 0
        assert [line["reason"] for line in lb.ended()] == ["upstream_eof"]


def test_service_manager_is_told(start: Start, tmp_path: Path) -> None:
    """sd_notify: READY after everything listens, RELOADING and READY around a reload, STOPPING with the drain"""
    listening, port = listen()
    with listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(WITHIN_S)

        def told() -> list[str]:
            return notify.recv(4096).decode().splitlines()

        lb = start(config([port]), environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert "READY=1" in told()
        lb.post("/api/v1/reload")
        reloading = told()
        assert "RELOADING=1" in reloading
        assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
        assert "READY=1" in told()
        lb.signal(signal.SIGTERM)
        assert "STOPPING=1" in told()
        assert lb.wait() == 0


def test_inherited_socket_is_served_with_what_waits_in_it(start: Start) -> None:
    """LISTEN_FDS, as systemd passes sockets: a client that came before the program is served by it"""
    upstream_listening, upstream_port = listen()
    with upstream_listening, socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        with connect(("127.0.0.1", port)) as early:
            lb = start(
                config([upstream_port], bind=f"127.0.0.1:{port}"),
                wrap=["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null', "sh"],
                stdin=own,
            )
            with accept(upstream_listening) as upstream:
                upstream.sendall(b"!")
                assert early.recv(1) == b"!"
        assert lb.address()[1] == port
        assert not lb.said("cannot bind")
        lb.signal(signal.SIGTERM)
        assert lb.wait() == 0
