"""Consul for `routed.py`: one agent, and a plain blocking query as its own client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.servers.consul import Consul, consul_agent
from tests.servers.programs import find

SERVICE: Final = "web"
HEAVIER: Final = 50


class ConsulSubject:
    operations = ("register", "deregister", "maintenance", "weight")

    def __init__(self, agent: Consul) -> None:
        self._agent = agent
        self.discovery = f"{{type: consul, address: '{agent.address}', service: {SERVICE}}}"

    def change(self, operation: str, port: int, *, back: bool = False) -> None:
        agent, name = self._agent, f"{SERVICE}-{port}"
        if operation == "maintenance":
            agent.maintenance(name, on=not back)
        elif operation == "weight":
            agent.register(port, service=SERVICE, Weights={"Passing": 1 if back else HEAVIER, "Warning": 1})
        elif (operation == "register") != back:
            agent.register(port, service=SERVICE)
        else:
            agent.deregister(name)

    def seen(self, operation: str, port: int) -> Callable[[], None]:
        index, now = self._ask("")

        def wait() -> None:
            at, found = index, now
            while not _shows(operation, port, found):
                at, found = self._ask(f"?index={at}&wait=30s")

        return wait

    def _ask(self, query: str) -> tuple[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._agent.port, timeout=40)
        try:
            connection.request("GET", f"/v1/health/service/{SERVICE}{query}")
            answer = connection.getresponse()
            return answer.headers["X-Consul-Index"], json.loads(answer.read())
        finally:
            connection.close()


def _shows(operation: str, port: int, found: Any) -> bool:
    entry = next((each for each in found if each["Service"]["Port"] == port), None)
    if operation == "deregister":
        return entry is None
    if entry is None:
        return False
    if operation == "maintenance":
        return any(each["CheckID"].startswith("_service_maintenance") for each in entry["Checks"])
    return operation == "register" or entry["Service"]["Weights"]["Passing"] == HEAVIER


@contextmanager
def consul(folder: Path) -> Iterator[ConsulSubject | None]:
    if find("consul") is None:
        yield None
        return
    with consul_agent(folder / "consul") as agent:
        yield ConsulSubject(agent)
