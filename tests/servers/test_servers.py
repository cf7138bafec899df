"""The programs of others start, serve and end as the tests that use them count on."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.patience import WITHIN_S
from tests.servers import programs
from tests.servers.consul import Consul
from tests.servers.fixtures import StartServer
from tests.servers.knot import ZONE, Knot
from tests.servers.netns import Namespace, network_namespace
from tests.servers.ports import ReservedPort
from tests.servers.process import Server, serve

LISTENER = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(s.accept())"

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen front
    bind 127.0.0.1:@front@
    server one 127.0.0.1:{upstream}
"""

REDIRECT = """
table ip t {
    chain out {
        type nat hook output priority -100
        tcp dport 81 redirect to :8081
    }
}
"""

NGINX_STREAM = "server {{ listen 127.0.0.1:@front@; proxy_pass 127.0.0.1:{upstream}; }}"


def exchange_through(port: int, upstream: socket.socket) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as client:
        client.sendall(b"hello")
        accepted, _ = upstream.accept()
        with accepted:
            accepted.settimeout(WITHIN_S)
            assert accepted.recv(5, socket.MSG_WAITALL) == b"hello"


@pytest.mark.parametrize(("fixture", "config"), [("haproxy", HAPROXY), ("nginx_stream", NGINX_STREAM)])
@pytest.mark.foreign
def test_tcp_proxy_forwards_to_the_tests_own_upstream(
    fixture: str, config: str, request: pytest.FixtureRequest
) -> None:
    start: StartServer = request.getfixturevalue(fixture)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(WITHIN_S)
        server = start(config.format(upstream=upstream.getsockname()[1]))
        exchange_through(server.ports["front"], upstream)


def test_nginx_answers_http(nginx_http: StartServer) -> None:
    server = nginx_http("server { listen 127.0.0.1:@web@; return 200 'from nginx'; }")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
    connection.request("GET", "/")
    with connection.getresponse() as response:
        assert (response.status, response.read()) == (200, b"from nginx")
    connection.close()


def test_redis_answers_its_own_client(redis: Server) -> None:
    client = [str(programs.require("redis-cli")), "-p", str(redis.port)]
    assert subprocess.run([*client, "set", "a", "1"], capture_output=True, check=True).stdout == b"OK\n"
    assert subprocess.run([*client, "get", "a"], capture_output=True, check=True).stdout == b"1\n"


def test_knot_tells_what_was_set_and_forgets_it_when_it_starts_again(knot: Knot) -> None:
    def addresses() -> list[str]:
        host, port = knot.address
        query = dns.message.make_query(f"web.{ZONE}", "A")
        answer = dns.query.udp(query, host, timeout=WITHIN_S, port=port).answer
        return [record.to_text() for rrset in answer for record in rrset]

    knot.set("web", "A", "10.0.0.1", "10.0.0.2")
    assert sorted(addresses()) == ["10.0.0.1", "10.0.0.2"]
    knot.set("web", "A")
    assert addresses() == []
    knot.set("web", "A", "10.0.0.3")
    knot.kill()
    knot.start()
    assert addresses() == []


def test_consul_started_again_has_forgotten_what_was_registered(consul: Consul) -> None:
    consul.register(80)
    assert [each["Service"]["ID"] for each in consul.ask("GET", "/v1/health/service/web")] == ["web-80"]
    consul.kill()
    consul.start()
    consul.wait_for_leader()
    assert consul.ask("GET", "/v1/health/service/web") == []


def test_consul_servers_know_each_other_and_their_leader(consul_servers: list[Consul]) -> None:
    assert {each.ask("GET", "/v1/status/leader") for each in consul_servers} <= {
        f"127.0.0.1:{each.ports['server']}" for each in consul_servers
    }
    assert len(consul_servers[0].ask("GET", "/v1/status/peers")) == 3


def test_consul_with_acls_gives_tokens_their_rights(consul_with_acls: Consul) -> None:
    consul_with_acls.register(80)
    root = consul_with_acls.ask("GET", "/v1/health/service/web")
    assert len(root) == 1
    narrow = consul_with_acls.token('node_prefix "" { policy = "read" }')
    assert consul_with_acls.ask("GET", "/v1/health/service/web", token=narrow) == []


def test_no_connection_is_made_to_find_out_whether_a_server_listens(tmp_path: Path) -> None:
    with serve([sys.executable, "-c", LISTENER, "@one@"], tmp_path) as server:
        assert server.process.poll() is None
        with socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S) as client:
            own_port = client.getsockname()[1]
            assert server.wait(WITHIN_S) == 0
    assert str(own_port) in server.output()


def test_program_that_ends_at_once_tells_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no such luck"),
        serve([sys.executable, "-c", "raise SystemExit('no such luck')", "@one@"], tmp_path),
    ):
        pass


def test_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.process.END_WITHIN_S", 0.05)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LISTENER
    with serve([sys.executable, "-c", deaf, "@one@"], tmp_path) as server:
        pass
    assert server.process.returncode == -signal.SIGKILL


def test_reserved_port_is_kept_for_the_server_alone() -> None:
    with ReservedPort() as port:
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port.number))
        with socket.create_server(("127.0.0.1", port.number)) as server:
            assert server.getsockname()[1] == port.number


def test_missing_program_skips_a_test_but_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        programs.require("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        programs.require("no-such-program")


def test_namespace_has_its_own_loopback_ports(netns: Namespace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        server = netns.serve([sys.executable, "-c", LISTENER, str(port)], {"same": port})
        reached = netns.run([str(programs.require("curl")), "-s", f"telnet://127.0.0.1:{port}"], check=False)
        assert server.wait(WITHIN_S) == 0, reached.stderr
    assert "127.0.0.1" in server.output()


def test_namespace_redirects_by_its_own_rules(netns: Namespace) -> None:
    netns.nft(REDIRECT)
    server = netns.serve([sys.executable, "-c", LISTENER, "8081"], {"front": 8081})
    netns.run([str(programs.require("curl")), "-s", "telnet://127.0.0.1:81"], check=False)
    assert server.wait(WITHIN_S) == 0
    with pytest.raises(subprocess.CalledProcessError):
        netns.nft("not a rule")


@pytest.mark.foreign
def test_namespace_and_what_runs_in_it_end_together(tmp_path: Path) -> None:
    with network_namespace(tmp_path) as namespace:
        server = namespace.serve([sys.executable, "-c", LISTENER, "81"], {"front": 81})
        mount = Path("/run/netns", namespace.name)
        assert mount.stat().st_ino == Path(f"/proc/{server.pid}/ns/net").stat().st_ino
        assert mount.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
    assert not mount.exists()
    assert server.process.returncode == -signal.SIGTERM
