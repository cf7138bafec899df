"""ZooKeeper: one server that keeps what it knows in a folder, so that it may be restarted with it or without."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.servers.process import Server, serve
from tests.servers.programs import missing, require

JAR: Final = Path("/usr/share/java/zookeeper.jar")
CONFIG: Final = """
tickTime=250
minSessionTimeout=500
maxSessionTimeout=60000
dataDir={data}
clientPortAddress=127.0.0.1
clientPort={port}
maxClientCnxns=0
admin.enableServer=false
"""


def zookeeper(folder: Path, *, data: Path, port: int | None = None) -> AbstractContextManager[Server]:
    """A server on a loopback port (`port`: on that one), which writes to the folder `data`."""
    java = require("java")
    if not JAR.exists():
        missing(f"{JAR} is not installed (tests/servers/install.sh installs it)")
    # Small and quick to start: a test needs neither a large heap nor code that is compiled well.
    command = [str(java), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    main = "org.apache.zookeeper.server.ZooKeeperServerMain"
    config = CONFIG.format(data=data, port="@zookeeper@" if port is None else port)
    return serve([*command, "-cp", str(JAR), main, "zoo.cfg"], folder, config=config, config_file="zoo.cfg")


def restartable(folder: Path, port: int | None, memory: int) -> AbstractContextManager[Server]:
    """For `tests.servers.restartable`: one `memory`, one folder of data."""
    number = len(list(folder.glob("zookeeper-*")))
    return zookeeper(folder / f"zookeeper-{number}", data=folder / f"data-{memory}", port=port)
