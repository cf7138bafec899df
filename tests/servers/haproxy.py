"""HAProxy beside lbproxy: the program whose behaviour is the yardstick."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.process import Server, serve
from tests.servers.programs import require


def haproxy(config: str, folder: Path) -> AbstractContextManager[Server]:
    """HAProxy with a whole configuration of the test's own; `@name@` stands for a port to listen on.

    It runs in the foreground as one process and says on its output what it thinks of the configuration.
    """
    return serve(
        [str(require("haproxy")), "-db", "-f", "haproxy.cfg"],
        folder,
        config=config,
        config_file="haproxy.cfg",
    )
