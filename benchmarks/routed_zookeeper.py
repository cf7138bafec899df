"""ZooKeeper for `routed.py`: one server, and a plain watch of kazoo's as its own client."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kazoo.client import KazooClient

from tests.servers.programs import find
from tests.servers.zookeeper import JAR
from tests.servers.zookeeper import zookeeper as run_zookeeper

NODE: Final = "/services/web"
HEAVIER: Final = 50
WITHIN_S: Final = 30.0


class ZooKeeperSubject:
    """`maintenance` is not among the operations: to ZooKeeper that is a weight like any other."""

    operations = ("register", "deregister", "weight")

    def __init__(self, port: int, instances: Any, watcher: Any) -> None:
        self._instances = instances
        self._watcher = watcher
        self.discovery = f"{{type: zookeeper, hosts: '127.0.0.1:{port}', path: {NODE}}}"

    def change(self, operation: str, port: int, *, back: bool = False) -> None:
        child = f"{NODE}/{port}"
        if operation == "weight":
            weight = 1 if back else HEAVIER
            self._instances.set(child, _entry(port, weight))
        elif (operation == "register") != back:
            self._instances.create(child, _entry(port, 1), ephemeral=True)
        else:
            self._instances.delete(child)

    def seen(self, operation: str, port: int) -> Callable[[], None]:  # noqa: ARG002  every change wakes this watch
        happened = threading.Event()
        self._watcher.exists(f"{NODE}/{port}", watch=lambda _: happened.set())

        def wait() -> None:
            assert happened.wait(WITHIN_S)

        return wait


def _entry(port: int, weight: int) -> bytes:
    return json.dumps({"address": f"127.0.0.1:{port}", "weight": weight}).encode()


@contextmanager
def zookeeper(folder: Path) -> Iterator[ZooKeeperSubject | None]:
    if find("java") is None or not JAR.exists():
        yield None
        return
    with run_zookeeper(folder / "zookeeper", data=folder / "data") as server:
        clients = [KazooClient(f"127.0.0.1:{server.port}") for _ in range(2)]
        try:
            for client in clients:
                client.start(WITHIN_S)
            clients[0].ensure_path(NODE)
            yield ZooKeeperSubject(server.port, *clients)
        finally:
            for client in clients:
                client.stop()
                client.close()
