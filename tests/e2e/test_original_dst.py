"""`original_dst` in a network namespace whose packet filter sends connections to the proxy: programs of others, unchanged.

Two ways in: a machine's own connections (nft's output hook, with a mark for the proxy's dials to pass), and connections of
others that are routed through it (prerouting).
"""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, connect_and_read, read_to_end
from tests.e2e.program import Program
from tests.patience import WITHIN_S
from tests.servers.netns import Namespace, network_namespace
from tests.servers.programs import missing, require

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "config" / "transparent.yaml"
MARK: Final = 7
PORT: Final = 8001
ADMIN: Final = 8002

CONFIG: Final = f"""
admin: {{bind: '127.0.0.1:{ADMIN}'}}
listeners: {{in: {{bind: ['127.0.0.1:{PORT}', '[::1]:{PORT}'], upstream: any}}}}
upstreams: {{any: {{type: original_dst, connect: {{mark: {MARK}}}}}}}
"""
UNMARKED: Final = CONFIG.replace(f", connect: {{mark: {MARK}}}", "")


def redirect(netns: Namespace, unless: str) -> None:
    """Every new TCP connection of the namespace goes to the proxy, but those to the proxy itself."""
    netns.nft(
        "table inet t { chain out { type nat hook output priority -100\n"
        f"{unless} tcp dport != {{ {PORT}, {ADMIN} }} redirect to :{PORT}\n}}\n}}\n"
    )


@pytest.fixture
def through(start: Start, netns: Namespace) -> Program:
    """The proxy, and a rule that sends it everything but its own dials."""
    program = start(CONFIG, netns=netns)
    redirect(netns, f"meta mark != {MARK}")
    return program


def test_curl_gets_there_unchanged(through: Program, netns: Namespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    python = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", str(tmp_path), "80"]
    netns.serve(python, {"web": 80})
    curl = [str(require("curl")), "-sS", "-o", str(tmp_path / "got"), "http://127.0.0.1/file"]
    netns.run(curl)
    assert (tmp_path / "got").stat().st_size == 3_000_000
    through.until(lambda: len(through.ended()) == 1)
    (line,) = through.ended()
    assert (line["endpoint"], line["received_bytes"] > 3_000_000) == ("original_dst", True)


def test_redis_client_gets_there_unchanged(through: Program, netns: Namespace) -> None:
    server = [str(require("redis-server")), "--port", "6379", "--save", "", "--bind", "127.0.0.1"]
    netns.serve(server, {"redis": 6379})
    client = str(require("redis-cli"))
    assert netns.run([client, "set", "greeting", "hello"]).stdout == "OK\n"
    assert netns.run([client, "get", "greeting"]).stdout == "hello\n"
    netns.run([str(require("redis-benchmark")), "-n", "5000", "-P", "16", "-q", "-t", "set,get"])
    through.until(lambda: len(through.ended()) > 2 and through.active() == 0)
    assert {line["endpoint"] for line in through.ended()} == {"original_dst"}


@pytest.mark.parametrize(
    "module", [pytest.param("test_ftplib", marks=pytest.mark.slow), "test_smtplib", "test_httplib"]
)
def test_network_tests_of_the_standard_library_pass_unchanged(
    module: str, through: Program, netns: Namespace, tmp_path: Path
) -> None:
    """CPython's own tests of its network modules: urgent data, half-closes, time-outs, IPv4 and IPv6"""
    name = f"test.{module}"
    if importlib.util.find_spec("test") is None or importlib.util.find_spec(name) is None:
        missing(f"this Python comes without {name}")
    # In a folder of its own: some of these tests write files where they stand.
    patient = f"import unittest, test.support as s; s.LOOPBACK_TIMEOUT = {WITHIN_S}; unittest.main('{name}', argv=['', '-v'])"
    command = 'cd "$1" && exec "$2" -c "$3"'
    done = netns.run(["sh", "-c", command, "sh", str(tmp_path), sys.executable, patient], check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "OK" in done.stderr
    through.until(lambda: through.active() == 0)
    assert len(through.ended()) > 5


def test_example_works_with_the_rules_that_stand_in_it(start: Start, netns: Namespace) -> None:
    require("nft")
    example = EXAMPLE.read_text()
    lb = start(example, netns=netns)
    rules = re.findall(r"^#   (nft .*)$", example, re.MULTILINE)
    assert len(rules) == 4
    for rule in rules:
        netns.run(["sh", "-c", rule])
    with netns.inside():
        listening = socket.create_server(("127.0.0.5", 80))
    with listening:
        listening.settimeout(WITHIN_S)
        with netns.inside():
            client = connect(("127.0.0.5", 80))
        with client, accept(listening) as upstream:
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
    lb.until(lambda: len(lb.ended()) == 1)
    assert lb.ended()[0]["endpoint"] == "original_dst"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_address_dialled_is_the_one_the_client_meant(
    family: socket.AddressFamily, through: Program, netns: Namespace
) -> None:
    here = "127.0.0.1" if family == socket.AF_INET else "::1"
    with netns.inside():
        listening = socket.create_server((here, 0), family=family)
    with listening:
        listening.settimeout(WITHIN_S)
        with netns.inside():
            client = connect(listening.getsockname()[:2])
        with client, accept(listening) as upstream:
            assert upstream.getpeername()[1] != client.getsockname()[1]
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
    through.until(lambda: through.active() == 0)


def test_nobody_there_is_told_to_the_client(through: Program, netns: Namespace) -> None:
    """One attempt, no other endpoint"""
    with netns.inside():
        assert connect_and_read(("127.0.0.1", 9)) == (0, "RST")
    through.until(lambda: len(through.ended()) == 1)
    (line,) = through.ended()
    assert (line["reason"], line["attempts"]) == ("connect_refused", 1)


@pytest.mark.parametrize("config", [CONFIG, UNMARKED], ids=["marked", "unmarked"])
def test_own_dial_that_comes_back_is_refused(config: str, start: Start, netns: Namespace) -> None:
    """A rule that does not skip the mark: one client makes two accepts, not an endless row of them"""
    lb = start(config, netns=netns)
    redirect(netns, "")
    with netns.inside():
        assert connect_and_read(("127.0.0.1", 9)) == (0, "RST")
    lb.until(lambda: len(lb.ended()) == 2)
    assert lb.total("lbproxy_listener_connections_total") == 2
    assert "no_endpoint" in {line["reason"] for line in lb.ended()}


@pytest.mark.parametrize("ruled", [True, False], ids=["redirect", "no rule"])
def test_direct_connection_to_the_listener_is_refused(ruled: bool, start: Start, netns: Namespace) -> None:
    lb = start(CONFIG, netns=netns)
    if ruled:
        redirect(netns, f"meta mark != {MARK}")
    for host in ("127.0.0.1", "::1"):
        with netns.inside():
            assert connect_and_read((host, PORT)) == (0, "RST")
    lb.until(lambda: len(lb.ended()) == 2)
    assert [line["reason"] for line in lb.ended()] == ["no_endpoint"] * 2
    assert lb.total("lbproxy_listener_connections_total") == 2


# -- routed through

FAR: Final = "10.98.0.1"


@pytest.fixture
def client_side(netns: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """A second namespace whose way to everywhere leads through the first."""
    ip = str(require("ip"))
    with network_namespace(tmp_path / "client") as other:
        words = [
            f"-n {netns.name} link add near type veth peer name far netns {other.name}",
            f"-n {netns.name} addr add 10.99.0.1/24 dev near",
            f"-n {netns.name} link set near up",
            f"-n {netns.name} addr add {FAR}/32 dev lo",
            f"-n {other.name} addr add 10.99.0.2/24 dev far",
            f"-n {other.name} link set far up",
            f"-n {other.name} route add default via 10.99.0.1",
        ]
        for line in words:
            subprocess.run([ip, *line.split()], check=True)
        yield other


def test_routed_connection_is_taken_on_its_way(
    start: Start, netns: Namespace, client_side: Namespace
) -> None:
    lb = start(CONFIG.replace(f"127.0.0.1:{PORT}", f"0.0.0.0:{PORT}"), netns=netns)
    netns.nft(
        "table ip t { chain pre { type nat hook prerouting priority -100\n"
        f"iifname near tcp dport 80 redirect to :{PORT}\n}}\n}}\n"
    )
    with netns.inside():
        listening = socket.create_server((FAR, 80))
    with listening:
        listening.settimeout(WITHIN_S)
        with client_side.inside():
            client = connect((FAR, 80))
        with client, accept(listening) as upstream:
            client.sendall(b"request")
            client.shutdown(socket.SHUT_WR)
            assert upstream.recv(7, socket.MSG_WAITALL) == b"request"
            assert upstream.recv(1) == b""
            upstream.sendall(b"answer")
            upstream.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == (6, "FIN")
    lb.until(lambda: len(lb.ended()) == 1)
    (line,) = lb.ended()
    assert (line["client"], line["endpoint"]) == ("10.99.0.2", "original_dst")
