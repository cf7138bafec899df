"""Conformance C9, K6, K7, K8: from the first connection to the last, with the signals and sockets a service manager uses."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, listen, read_to_end
from tests.e2e.program import config
from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort

QUEUED = 20


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
    """C9: FIN for an idle session, RST where bytes could not be delivered; their number is logged and the exit is a good one"""
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


@pytest.mark.parametrize("event_loop", ["auto", "asyncio"])
def test_signals_that_come_while_it_ends_spoil_no_good_end(start: Start, event_loop: str) -> None:
    """K7: a manager that is impatient sends one after the other, up to the last moment"""
    listening, port = listen()
    with listening:
        lb = start(config([port], more=f"runtime: {{event_loop: {event_loop}}}"))
        while not lb.ends_within(0.002):
            lb.signal(signal.SIGTERM)
            lb.signal(signal.SIGHUP)
        assert lb.wait() == 0


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
