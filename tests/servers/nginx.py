"""nginx, as a stream proxy beside lbproxy and as an HTTP server behind it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.process import Server, serve
from tests.servers.programs import NGINX_STREAM_MODULE, missing, require

# Everything nginx writes stays in its own folder, and it stays the user it was started as (root may be needed to enter
# that folder).
FRAME = """
{load}
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
{body}
"""

HTTP = """
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {body}
}}
"""


def nginx_stream(body: str, folder: Path) -> AbstractContextManager[Server]:
    """Nginx as a TCP proxy: `body` is what stands in `stream {}`; `@name@` stands for a port to listen on."""
    program = require("nginx")
    if not NGINX_STREAM_MODULE.exists():
        missing(f"{NGINX_STREAM_MODULE} is not installed (tests/servers/install.sh installs it)")
    return _nginx(program, f"stream {{ {body} }}", folder, load=f"load_module {NGINX_STREAM_MODULE};")


def nginx_http(body: str, folder: Path) -> AbstractContextManager[Server]:
    """Nginx as an HTTP server: `body` is what stands in `http {}`; `@name@` stands for a port to listen on."""
    return _nginx(require("nginx"), HTTP.format(body=body), folder, load="")


def _nginx(program: Path, body: str, folder: Path, load: str) -> AbstractContextManager[Server]:
    user = "user root;" if os.geteuid() == 0 else ""
    config = FRAME.format(load=load, user=user, body=body)
    command = [str(program), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
    return serve(command, folder, config=config, config_file="nginx.conf")
