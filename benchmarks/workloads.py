"""What they have to do: a table. Each workload is a load generator's command and the way to read how much it did."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.servers.programs import find


class LoadError(Exception):
    """The load generator did not see what it should have: the figure would mean nothing."""


@dataclass(frozen=True, eq=False)
class Workload:
    """`per` names what is counted. `targets` are the most that a contender (by name) may cost, as a multiple of the baseline."""

    name: str
    per: str
    wrk: tuple[str, ...]
    targets: Mapping[str, float] = field(default_factory=dict)

    def run(self, port: int, seconds: int, prefix: tuple[str, ...]) -> tuple[int, float]:
        """Put the load on 127.0.0.1:`port`: how many were done, in how many seconds. Raises LoadError."""
        wrk = find("wrk")
        if wrk is None:
            raise LoadError("wrk is not installed (tests/servers/install.sh installs it)")
        command = [*prefix, str(wrk), *self.wrk, "-d", f"{seconds}s", f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds * 3 + 30)
        # The address is printed before; "1234 requests in 5.00s" and, only then, lines about errors follow.
        found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", done.stdout)
        if found is None or "Socket errors" in done.stdout or "Non-2xx" in done.stdout:
            raise LoadError(f"{self.name} on port {port}:\n{done.stdout}{done.stderr}")
        return int(found[1]), float(found[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[3]]


_CLIENTS = ("-t", "1", "-c", "32")
_LBPROXY = "lbproxy, asyncio relay"

WORKLOADS = (
    Workload(
        "new connections",
        "connection",
        (*_CLIENTS, "-H", "Connection: close"),
        targets={_LBPROXY: 2.5},
    ),
    Workload("kept connections", "request", _CLIENTS, targets={_LBPROXY: 1.5}),
)
