"""Programs of others through the proxy, in the ordinary way: an HTTP server, Redis and a throughput meter behind it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.program import config
from tests.patience import WITHIN_S
from tests.servers.fixtures import StartServer
from tests.servers.process import Server, serve
from tests.servers.programs import require

MIB = 1 << 20


def run(*words: str | Path) -> str:
    """Run a client program to its end, which must be a good one; its output."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def web(nginx_http: StartServer, folder: Path) -> Server:
    (folder / "large").write_bytes(bytes(8 * MIB))
    return nginx_http(
        f"server {{ listen 127.0.0.1:@web@; keepalive_requests 1000000; root {folder};"
        " location = / { return 200 'from nginx'; } }"
    )


def test_curl_fetches_small_and_large(start: Start, nginx_http: StartServer, tmp_path: Path) -> None:
    lb = start(config([web(nginx_http, tmp_path).port]))
    url = f"http://127.0.0.1:{lb.address()[1]}"
    curl = require("curl")
    assert run(curl, "-sS", url) == "from nginx"
    run(curl, "-sS", "-o", tmp_path / "got", f"{url}/large")
    assert (tmp_path / "got").stat().st_size == 8 * MIB
    # One connection for several requests, as long as curl keeps it.
    assert run(curl, "-sS", url, url, url) == "from nginx" * 3
    lb.until(lambda: len(lb.ended()) == 3)


def test_wrk_meets_no_error(start: Start, nginx_http: StartServer, tmp_path: Path) -> None:
    lb = start(config([web(nginx_http, tmp_path).port]))
    said = run(
        require("wrk"), "-t1", "-c20", "-d1s", "--timeout", "30s", f"http://127.0.0.1:{lb.address()[1]}/"
    )
    requests = re.search(r"(\d+) requests in", said)
    assert requests, said
    assert int(requests.group(1)) > 100
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


def test_redis_answers_through_it(start: Start, redis: Server) -> None:
    lb = start(config([redis.port]))
    client = [str(require("redis-cli")), "-p", str(lb.address()[1])]
    assert run(*client, "set", "greeting", "hello") == "OK\n"
    assert run(*client, "get", "greeting") == "hello\n"


def test_redis_benchmark_pipelines_through_it(start: Start, redis: Server) -> None:
    lb = start(config([redis.port]))
    options = ["-n", "20000", "-c", "20", "-P", "16", "-d", "100", "-t", "set,get", "--csv"]
    said = run(require("redis-benchmark"), "-p", str(lb.address()[1]), *options)
    assert '"SET"' in said
    assert '"GET"' in said
    assert "rror" not in said


@pytest.mark.foreign
@pytest.mark.parametrize(
    "direction", [[], ["--reverse"], ["--parallel", "4"]], ids=["up", "down", "parallel"]
)
def test_iperf3_moves_its_bytes(direction: list[str], start: Start, tmp_path: Path) -> None:
    iperf3 = require("iperf3")
    with serve([str(iperf3), "-s", "-1", "-p", "@iperf@"], tmp_path / "iperf3") as server:
        lb = start(config([server.port]))
        run(iperf3, "-c", "127.0.0.1", "-p", str(lb.address()[1]), "-n", "64M", *direction)
        streams = 4 if "4" in direction else 1
        lb.until(lambda: len(lb.ended()) == streams + 1)  # and the one it controls the test by
        # The receiver ends the test when the sender has sent all, so what was on its way then does not count.
        assert sum(line["sent_bytes"] + line["received_bytes"] for line in lb.ended()) > 16 * MIB


def test_python_web_client_and_server_through_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello")
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", str(tmp_path), "@web@"]
    with serve(server, tmp_path / "http") as behind:
        lb = start(config([behind.port]))
        fetch = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{lb.address()[1]}/hello').read())"
        )
        assert run(sys.executable, "-c", fetch) == "b'hello'\n"
