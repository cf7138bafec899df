"""etcd for `routed.py`: one member, and a plain watch as its own client."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.servers.etcd import Etcd
from tests.servers.etcd import etcd as run_etcd
from tests.servers.programs import find

PREFIX: Final = "/services/web/"
HEAVIER: Final = 50
WITHIN_S: Final = 30.0


class EtcdSubject:
    """`maintenance` is not among the operations: to etcd that is a weight like any other."""

    operations = ("register", "deregister", "weight")

    def __init__(self, member: Etcd) -> None:
        self._member = member
        self.discovery = f"{{type: etcd, addresses: '{member.url}', prefix: {PREFIX}}}"

    def change(self, operation: str, port: int, *, back: bool = False) -> None:
        key = f"{PREFIX}{port}"
        if operation == "weight":
            weight = 1 if back else HEAVIER
            self._member.put(key, json.dumps({"address": f"127.0.0.1:{port}", "weight": weight}))
        elif (operation == "register") != back:
            self._member.put(key, f"127.0.0.1:{port}")
        else:
            self._member.delete(key)

    def seen(self, operation: str, port: int) -> Callable[[], None]:  # noqa: ARG002  every change is one event
        connection = http.client.HTTPConnection("127.0.0.1", self._member.port, timeout=WITHIN_S)
        key = base64.b64encode(f"{PREFIX}{port}".encode()).decode()
        connection.request("POST", "/v3/watch", json.dumps({"create_request": {"key": key}}))
        answer = connection.getresponse()
        assert b'"created":true' in answer.readline()

        def wait() -> None:
            try:
                assert b'"events"' in answer.readline()
            finally:
                connection.close()

        return wait


@contextmanager
def etcd(folder: Path) -> Iterator[EtcdSubject | None]:
    if find("etcd") is None:
        yield None
        return
    with run_etcd(folder / "etcd") as member:
        yield EtcdSubject(member)
