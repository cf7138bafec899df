"""Who is measured: a table. Each one balances TCP over the same backends with one worker; a new one is a new line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import find

CONFIG_FILE = "proxy.conf"  # HAProxy and lbproxy do not care about the ending

HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 3s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:@proxy@
    balance roundrobin
{servers}
"""

LBPROXY = """
runtime: {{event_loop: uvloop, relay: {relay}, relay_threads: 1}}
admin: {{bind: "127.0.0.1:@admin@"}}
log: {{format: json, access: {{enabled: {access_log}}}}}
listeners: {{bench: {{bind: "127.0.0.1:@proxy@", upstream: bench}}}}
upstreams: {{bench: {{endpoints: [{endpoints}]}}}}
"""


@dataclass(frozen=True)
class Contender:
    """`config` takes the backends' ports; `@proxy@` in it stands for the port to listen on. `command` runs in the folder of the
    configuration. `program` must be installed, or the contender is left out."""

    name: str
    program: str
    command: tuple[str, ...]
    config: Callable[[Sequence[int]], str]

    def found(self) -> Path | None:
        """Where the program is, if it is."""
        return find(self.program)


def _haproxy(ports: Sequence[int]) -> str:
    return HAPROXY.format(servers="\n".join(f"    server s{port} 127.0.0.1:{port}" for port in ports))


def _lbproxy(relay: str, access_log: bool) -> Callable[[Sequence[int]], str]:
    def config(ports: Sequence[int]) -> str:
        endpoints = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        return LBPROXY.format(relay=relay, access_log=str(access_log).lower(), endpoints=endpoints)

    return config


_RUN_LBPROXY = ("-m", "lbproxy", "run", "-c", CONFIG_FILE)

BASELINE = "HAProxy"
CONTENDERS = (
    Contender(BASELINE, "haproxy", ("-db", "-f", CONFIG_FILE), _haproxy),
    Contender("lbproxy, asyncio relay", sys.executable, _RUN_LBPROXY, _lbproxy("asyncio", access_log=False)),
    Contender(
        "lbproxy, asyncio relay, access log",
        sys.executable,
        _RUN_LBPROXY,
        _lbproxy("asyncio", access_log=True),
    ),
    Contender("lbproxy, native relay", sys.executable, _RUN_LBPROXY, _lbproxy("native", access_log=False)),
    Contender(
        "lbproxy, native relay, access log", sys.executable, _RUN_LBPROXY, _lbproxy("native", access_log=True)
    ),
)
