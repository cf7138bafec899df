"""The real servers behind all proxies: nginx, iperf3, redis, PostgreSQL, and one that holds idle connections."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.held import IDLE
from tests.servers.process import Server, serve
from tests.servers.programs import find

WEB_PORTS = 4

NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ {listen} location / {{ return 200 "hello\\n"; }} }}
}}
"""


def start(running: ExitStack, folder: Path, prefix: tuple[str, ...]) -> dict[str, Server]:
    """Service -> its server, for each that is installed. Raises OSError when nginx, without which nothing works, is not."""
    servers = {"web": _web(running, folder / "web", prefix)}
    commands = {
        "idle": (sys.executable, str(IDLE), "serve", "@idle@"),
        "bulk": ("iperf3", "-s", "-B", "127.0.0.1", "-p", "@bulk@"),
        "redis": ("redis-server", "--port", "@redis@", "--bind", "127.0.0.1", "--save", ""),
    }
    for service, (program, *words) in commands.items():
        found = find(program)
        if found is None:
            print(f"{program} is not installed: its workload is left out", file=sys.stderr)
        else:
            servers[service] = running.enter_context(serve([*prefix, str(found), *words], folder / service))
    postgres = _postgres(running, folder / "postgres", prefix)
    if postgres is not None:
        servers["postgres"] = postgres
    return servers


def _web(running: ExitStack, folder: Path, prefix: tuple[str, ...]) -> Server:
    nginx = find("nginx")
    if nginx is None:
        raise OSError("nginx is not installed (benchmarks/install.sh installs it)")
    listen = " ".join(f"listen 127.0.0.1:@b{chr(97 + number)}@ backlog=4096;" for number in range(WEB_PORTS))
    command = [*prefix, str(nginx), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
    return running.enter_context(
        serve(command, folder, config=NGINX.format(listen=listen), config_file="nginx.conf")
    )


def _postgres(running: ExitStack, folder: Path, prefix: tuple[str, ...]) -> Server | None:
    """PostgreSQL refuses to run as root: as root it gets the user its package made."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or find("pgbench") is None:
        print("PostgreSQL is not installed: its workload is left out", file=sys.stderr)
        return None
    data = folder / "data"
    data.mkdir(parents=True)
    user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        postgres = pwd.getpwnam("postgres")
        shutil.chown(data, postgres.pw_uid, postgres.pw_gid)
        for each in (
            folder,
            folder.parent,
        ):  # both ours: above them is the folder of everybody's temporary files
            each.chmod(0o755)
        user = ("setpriv", f"--reuid={postgres.pw_uid}", f"--regid={postgres.pw_gid}", "--clear-groups")
    initdb = [*user, str(programs[-1] / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "-N"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=data)
    command = [
        *prefix, *user, str(programs[-1] / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", "@postgres@", "-k", "",
        "-F", "-c", "max_connections=50",
    ]  # fmt: skip
    server = running.enter_context(serve(command, folder))
    fill = ["pgbench", "-h", "127.0.0.1", "-p", str(server.port), "-U", "bench", "-i", "-q", "postgres"]
    subprocess.run(fill, check=True, capture_output=True)
    return server
