"""`lbproxy demo`: four upstream servers of different speeds, the proxy before them, the admin page, and what to try."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lbproxy.app import logs
from lbproxy.app.application import Application, StartError
from lbproxy.app.starting import serve
from lbproxy.config.load import Loaded, load_text
from lbproxy.demo.upstream import Speed, upstreams

HOST: Final = "127.0.0.1"
PROXY_PORT: Final = 8080
ADMIN_PORT: Final = 9900
SPEEDS: Final = (Speed("swift", 0.005), Speed("steady", 0.02), Speed("slow", 0.1), Speed("sleepy", 0.5))

CONFIG: Final = """
runtime: {{drain_timeout: 2s}}
admin: {{bind: "{host}:{admin}"}}
listeners:
  web: {{bind: "{host}:{proxy}", upstream: web}}
upstreams:
  web:
    strategy: least_connection
    endpoints: [{endpoints}]
"""

TEXT: Final = """
lbproxy demo: http://{host}:{proxy}/ balances over four servers by least connection{notes}

{servers}

Admin page and metrics: http://{host}:{admin}/

Try, in another terminal:

  curl http://{host}:{proxy}/                      # again and again: they take turns
  seq 200 | xargs -P 8 -I{{}} curl -s http://{host}:{proxy}/ | sort | uniq -c    # 8 at once: the quick ones get more
  {command} status{option}
  {command} drain{option} web {host}:{swift}       # no new connections there
  {command} undrain{option} web {host}:{swift}
  {command} weight{option} web {host}:{slow} 10
  curl -s http://{host}:{admin}/metrics | grep endpoint_connections

Ctrl-C ends it. Below: a line for each connection that has ended.
"""


def main(args: argparse.Namespace) -> int:  # noqa: ARG001 - the command takes no arguments, and every command is called alike
    """Run until Ctrl-C or SIGTERM; the exit code."""
    logs.configure("warning", "auto", sys.stderr)
    return serve(_demo, "auto")


async def _demo() -> None:
    notes: list[str] = []
    proxy = _port(PROXY_PORT, "", notes)
    admin = _port(ADMIN_PORT, "the admin page's ", notes)
    async with upstreams(SPEEDS) as ports:
        endpoints = ", ".join(f'"{HOST}:{port}"' for port in ports)
        config = CONFIG.format(host=HOST, proxy=proxy, admin=admin, endpoints=endpoints)

        def read() -> Loaded:
            return load_text(config, "demo", {})

        application = Application(read(), read, {}, ends_process=True)
        text = _text(proxy, admin, ports, notes)
        async with asyncio.TaskGroup() as group:
            announcing = group.create_task(_announce(application, text), name="announce")
            await application.run()
            announcing.cancel()


async def _announce(application: Application, text: str) -> None:
    await application.started.wait()
    print(text, flush=True)


def _text(proxy: int, admin: int, ports: Sequence[int], notes: Sequence[str]) -> str:
    return TEXT.format(
        host=HOST,
        proxy=proxy,
        admin=admin,
        notes="".join(f"\n({note})" for note in notes),
        servers="\n".join(
            f"  {speed.name:<7} {HOST}:{port:<6} answers after {speed.delay_s * 1000:.0f} ms"
            for speed, port in zip(SPEEDS, ports, strict=True)
        ),
        command=_command(sys.argv[0]),
        option="" if admin == ADMIN_PORT else f" --admin {HOST}:{admin}",
        swift=ports[0],
        slow=ports[2],
    )


def _port(wanted: int, whose: str, notes: list[str]) -> int:
    """`wanted` if it is free, else a port that the kernel chooses; then `notes` says so. Raises StartError."""
    try:
        return _free(wanted)
    except OSError:
        notes.append(f"{whose}port {wanted} is taken, so it is another one")
    try:
        return _free(0)
    except OSError as error:
        raise StartError([f"no port of {HOST} is free: {error}"]) from error


def _free(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        probe.listen()  # with SO_REUSEADDR, a port that somebody listens on is found out only here
        number: int = probe.getsockname()[1]
    return number


def _command(called: str) -> str:
    """How to call the command from where the user is: not everybody has it on the path."""
    found = shutil.which("lbproxy")
    if Path(called).name != "lbproxy":
        return f"{os.path.relpath(sys.executable)} -m lbproxy"
    if found is not None and Path(found).samefile(called):
        return "lbproxy"
    return os.path.relpath(called)
