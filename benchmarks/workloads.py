"""What they have to do, and the targets: a table. Each workload is a load generator's command and the way to read its answer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.contenders import ASYNCIO, NATIVE
from tests.servers.programs import find

GB = 1e9


class LoadError(Exception):
    """The load generator did not see what it should have: the figure would mean nothing."""


@dataclass(frozen=True)
class Done:
    """`count` things in `took_s`; the latencies where the generator tells them."""

    count: float
    took_s: float
    p50_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True, eq=False)
class Workload:
    """`per` names what is counted, `service` who serves it. `command` gets the port and the seconds; `read` turns its output
    into what was done, or None. `targets` are the most that a contender (by name) may cost, as a multiple of the baseline.
    `tool` says that it is a line of the table of real load tools, which has fewer rounds."""

    name: str
    per: str
    service: str
    command: Callable[[int, int], Sequence[str]]
    read: Callable[[str], Done | None]
    targets: Mapping[str, float] = field(default_factory=dict)
    p99_targets: Mapping[str, float] = field(default_factory=dict)
    unit_us: float = 1.0
    tool: bool = False

    @property
    def unit(self) -> str:
        return "µs" if self.unit_us == 1.0 else "ms"

    def run(self, port: int, seconds: int, prefix: tuple[str, ...]) -> Done:
        """Put the load on 127.0.0.1:`port`. Raises LoadError."""
        program, *words = self.command(port, seconds)
        found = find(program)
        if found is None:
            raise LoadError(f"{program} is not installed (benchmarks/install.sh installs it)")
        command = [*prefix, str(found), *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds * 3 + 60)
        done = self.read(run.stdout)
        if done is None or not done.count:
            raise LoadError(f"{self.name} on port {port}: {' '.join(command)}\n{run.stdout}{run.stderr}")
        return done


_TIMES = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def _wrk(*words: str) -> Callable[[int, int], Sequence[str]]:
    return lambda port, seconds: (
        "wrk", "-t", "1", *words, "--latency", "-d", f"{seconds}s", f"http://127.0.0.1:{port}/",
    )  # fmt: skip


def read_wrk(text: str) -> Done | None:
    # The address is printed before; "1234 requests in 5.00s" and, only then, lines about errors follow.
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    if found is None or "Socket errors" in text or "Non-2xx" in text:
        return None
    parts = {
        percent: float(value) * _TIMES[unit]
        for percent, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)", text)
    }
    return Done(int(found[1]), float(found[2]) * _TIMES[found[3]] / 1e6, parts.get("50"), parts.get("99"))


def _iperf3(*words: str) -> Callable[[int, int], Sequence[str]]:
    return lambda port, seconds: (
        "iperf3", "-c", "127.0.0.1", "-p", str(port), "-P", "4", "-t", str(seconds), "-J", *words,
    )  # fmt: skip


def read_iperf3(text: str) -> Done | None:
    end = json.loads(text or "{}").get("end", {})
    received = end.get("sum_received")
    return Done(received["bytes"] / GB, received["seconds"]) if received else None


def _redis(port: int, seconds: int) -> Sequence[str]:
    return ("redis-benchmark", "-p", str(port), "-c", "32", "-n", str(20_000 * seconds), "-t", "get", "--csv")


def read_redis(text: str) -> Done | None:
    found = re.search(r'"GET","([\d.]+)","([\d.]+)","[\d.]+","([\d.]+)","[\d.]+","([\d.]+)"', text)
    if found is None:
        return None
    rate, _mean_ms, p50_ms, p99_ms = map(float, found.groups())
    return Done(rate, 1.0, p50_ms * 1e3, p99_ms * 1e3)


def _pgbench(port: int, seconds: int) -> Sequence[str]:
    return (
        "pgbench",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        "bench",
        "-n",
        "-S",
        "-c",
        "8",
        "-T",
        str(seconds),
        "postgres",
    )


def read_pgbench(text: str) -> Done | None:
    found = re.search(r"actually processed: (\d+)", text)
    tps = re.search(r"tps = ([\d.]+)", text)
    return Done(int(found[1]), int(found[1]) / float(tps[1])) if found and tps else None


WORKLOADS = (
    Workload(
        "new connections", "connection", "web", _wrk("-c", "32", "-H", "Connection: close"), read_wrk,
        targets={NATIVE: 1.05, ASYNCIO: 2.5},
    ),
    Workload("1 kept client", "request", "web", _wrk("-c", "1"), read_wrk),
    Workload(
        "32 kept clients", "request", "web", _wrk("-c", "32"), read_wrk, targets={NATIVE: 0.92, ASYNCIO: 1.5}
    ),
    Workload(
        "512 kept clients", "request", "web", _wrk("-c", "512"), read_wrk, targets={NATIVE: 1.0}, p99_targets={NATIVE: 1.0}
    ),
    Workload("upload", "GB", "bulk", _iperf3(), read_iperf3, targets={NATIVE: 0.45}, unit_us=1e3),
    Workload("download", "GB", "bulk", _iperf3("-R"), read_iperf3, targets={NATIVE: 0.45}, unit_us=1e3),
    Workload("redis-benchmark, 32 clients, GET", "request", "redis", _redis, read_redis, tool=True),
    Workload("pgbench, 8 clients, SELECT", "transaction", "postgres", _pgbench, read_pgbench, tool=True),
)  # fmt: skip
