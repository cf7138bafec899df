"""DNS for `routed.py`: Knot with SRV records, and a plain client that asks as often as lbproxy is told to. DNS has no news: whoever wants
to know asks again, so the registry's own time is that of a client whose questions are not in step with ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dns.message
import dns.query

from tests.servers.knot import ZONE, Knot
from tests.servers.knot import knot as run_knot
from tests.servers.programs import find

NAME: Final = "_web._tcp"
TARGET: Final = "here"
HEAVIER: Final = 50
EVERY_S: Final = 0.25  # the least that `ttl.min` takes
WITHIN_S: Final = 30.0


class DnsSubject:
    """`maintenance` is not among the operations: DNS knows none."""

    operations = ("register", "deregister", "weight")

    def __init__(self, server: Knot) -> None:
        self._server = server
        self._weights: dict[int, int] = {}
        host, port = server.address
        self.discovery = f"{{type: dns, name: {NAME}.{ZONE}, record: srv, servers: ['{host}:{port}'], ttl: {{min: 250ms, max: 250ms}}}}"

    def change(self, operation: str, port: int, *, back: bool = False) -> None:
        if operation == "weight":
            self._weights[port] = 1 if back else HEAVIER
        elif (operation == "register") != back:
            self._weights[port] = 1
        else:
            del self._weights[port]
        records = (f"0 {weight} {each} {TARGET}.{ZONE}" for each, weight in self._weights.items())
        self._server.set(NAME, "SRV", *records, ttl=0)

    def seen(self, operation: str, port: int) -> Callable[[], None]:  # noqa: ARG002  any change of the records is this one
        before = self._ask()

        def wait() -> None:
            deadline = time.monotonic() + WITHIN_S
            while self._ask() == before:
                assert time.monotonic() < deadline
                time.sleep(EVERY_S)

        return wait

    def _ask(self) -> frozenset[str]:
        host, port = self._server.address
        answer = dns.query.udp(dns.message.make_query(f"{NAME}.{ZONE}", "SRV"), host, WITHIN_S, port)
        return frozenset(str(record) for records in answer.answer for record in records)


@contextmanager
def dns_server(folder: Path) -> Iterator[DnsSubject | None]:
    if find("knotd") is None:
        yield None
        return
    with run_knot(folder / "knot") as server:
        server.set(TARGET, "A", "127.0.0.1")
        yield DnsSubject(server)
