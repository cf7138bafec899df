"""Who is measured: a table. Each one balances TCP over the same servers with one worker; a new one is a new line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import NGINX_STREAM_MODULE, REPOSITORY, find

CONFIG_FILE = "proxy.yaml"  # Envoy goes by the ending, the others do not care

Services = Mapping[str, Sequence[int]]
"""Service -> the ports of its servers. A proxy listens for each service on the port that `@service@` in its configuration is."""

HAPROXY = """
global
    nbthread 1
    maxconn {maxconn}
defaults
    mode tcp
    timeout connect 3s
    timeout client 1h
    timeout server 1h{splice}
"""
HAPROXY_LISTEN = """
listen {service}
    bind 127.0.0.1:@{service}@
    balance roundrobin
    maxconn 9900
"""

NGINX = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 19900; }}
stream {{
{streams}
}}
"""
NGINX_STREAM = """
    upstream {service} {{ {servers} }}
    server {{ listen 127.0.0.1:@{service}@ backlog=4096; proxy_pass {service}; proxy_timeout 1h; }}
"""

LBPROXY = """
runtime: {{event_loop: uvloop, relay: {relay}, relay_threads: 1}}
admin: {{bind: "127.0.0.1:@admin@"}}
log: {{format: json, access: {{enabled: {access_log}}}}}
listeners: {{{listeners}}}
upstreams: {{{upstreams}}}
"""

ENVOY_LISTENER = """
  - name: {service}
    address: {{socket_address: {{address: 127.0.0.1, port_value: @{service}@}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: {service}
          cluster: {service}
"""
ENVOY_CLUSTER = """
  - name: {service}
    type: STATIC
    connect_timeout: 3s
    circuit_breakers: {{thresholds: [{{max_connections: 99999, max_pending_requests: 99999}}]}}
    load_assignment: {{cluster_name: {service}, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}
"""
ENVOY_ENDPOINT = "{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"


@dataclass(frozen=True)
class Contender:
    """`command` runs in the folder of the configuration, which `config` makes. `program` must be installed, or the contender is
    left out; without a program there is no proxy at all. `only` are the workloads (by name) it takes part in, if not all."""

    name: str
    program: str
    command: tuple[str, ...]
    config: Callable[[Services], str]
    only: tuple[str, ...] = ()
    held: bool = True

    def found(self) -> Path | None:
        """Where the program is, if it is."""
        own = ENVOY_FOLDER / self.program
        return own if own.exists() else find(self.program)


def _haproxy(splice: bool) -> Callable[[Services], str]:
    def config(services: Services) -> str:
        # Pipes count as descriptors, too.
        text = HAPROXY.format(
            splice="\n    option splice-auto" if splice else "", maxconn=4096 if splice else 9900
        )
        for service, ports in services.items():
            text += HAPROXY_LISTEN.format(service=service)
            text += "".join(f"    server s{port} 127.0.0.1:{port}\n" for port in ports)
        return text

    return config


def _nginx(services: Services) -> str:
    streams = "".join(
        NGINX_STREAM.format(
            service=service, servers=" ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        )
        for service, ports in services.items()
    )
    return NGINX.format(module=NGINX_STREAM_MODULE, streams=streams)


def _endpoints(ports: Sequence[int]) -> str:
    return "{endpoints: [" + ", ".join(f'"127.0.0.1:{port}"' for port in ports) + "]}"


def _lbproxy(relay: str, access_log: bool) -> Callable[[Services], str]:
    def config(services: Services) -> str:
        return LBPROXY.format(
            relay=relay,
            access_log=str(access_log).lower(),
            listeners=", ".join(
                f'{each}: {{bind: "127.0.0.1:@{each}@", upstream: {each}}}' for each in services
            ),
            upstreams=", ".join(f"{each}: {_endpoints(ports)}" for each, ports in services.items()),
        )

    return config


def _envoy(services: Services) -> str:
    listeners = "".join(ENVOY_LISTENER.format(service=service) for service in services)
    clusters = "".join(
        ENVOY_CLUSTER.format(
            service=service, endpoints=", ".join(ENVOY_ENDPOINT.format(port=port) for port in ports)
        )
        for service, ports in services.items()
    )
    return f"static_resources:\n  listeners:{listeners}\n  clusters:{clusters}"


ENVOY_FOLDER = REPOSITORY / ".cache" / "envoy" / "bin"  # benchmarks/install.sh puts it there
_RUN_LBPROXY = ("-m", "lbproxy", "run", "-c", CONFIG_FILE)
_RUN_ENVOY = (
    "-c", CONFIG_FILE, "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "error",
)  # fmt: skip

DIRECT = "direct"
BASELINE = "HAProxy"
NATIVE = "lbproxy, native relay"
NATIVE_LOG = "lbproxy, native relay, access log"
ASYNCIO = "lbproxy, asyncio relay"

CONTENDERS = (
    Contender(DIRECT, "", (), lambda _: ""),
    Contender(BASELINE, "haproxy", ("-db", "-f", CONFIG_FILE), _haproxy(splice=False)),
    Contender(
        "HAProxy, splice",
        "haproxy",
        ("-db", "-f", CONFIG_FILE),
        _haproxy(splice=True),
        ("upload", "download"),
        held=False,
    ),
    Contender("nginx", "nginx", ("-p", "./", "-c", CONFIG_FILE, "-e", "stderr"), _nginx),
    Contender("Envoy", "envoy", _RUN_ENVOY, _envoy),
    Contender(NATIVE, sys.executable, _RUN_LBPROXY, _lbproxy("native", access_log=False)),
    Contender(
        NATIVE_LOG,
        sys.executable,
        _RUN_LBPROXY,
        _lbproxy("native", access_log=True),
        ("new connections",),
        held=False,
    ),
    Contender(ASYNCIO, sys.executable, _RUN_LBPROXY, _lbproxy("asyncio", access_log=False)),
)
