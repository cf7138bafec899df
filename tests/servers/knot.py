"""Knot DNS: an authoritative server whose records can be changed while it runs, by dynamic update (RFC 2136)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dns.query
import dns.rcode
import dns.update

from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort
from tests.servers.process import Server
from tests.servers.programs import require

ZONE: Final = "example.test."
BROKEN_ZONE: Final = "broken.test."
"""Configured, and without a file: every question about it is a SERVFAIL. What lies in no zone is REFUSED."""

_NEGATIVE_TTL: Final = 1

_CONFIG: Final = """
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{folder}"
acl:
  - id: local
    address: 127.0.0.1
    action: update
template:
  - id: default
    storage: "{folder}"
    acl: local
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
  - domain: {zone}
    file: zone
  - domain: {broken}
    file: missing
"""
_RECORDS: Final = """
$ORIGIN {zone}
@ 1 SOA ns hostmaster 1 3600 600 86400 {ttl}
@ 1 NS ns
ns 1 A 127.0.0.1
"""


class Knot:
    """A running server on `address`, in charge of ZONE. What was set is forgotten when it starts again."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.address = ("127.0.0.1", port)
        (folder / "knot.conf").write_text(
            _CONFIG.format(folder=folder, port=port, zone=ZONE, broken=BROKEN_ZONE)
        )
        (folder / "zone").write_text(_RECORDS.format(zone=ZONE, ttl=_NEGATIVE_TTL))
        self._server: Server | None = None
        self.start()

    def start(self) -> None:
        command = [str(require("knotd")), "-c", str(self._folder / "knot.conf")]
        self._server = Server(command, self._folder, {"dns": self.address[1]})

    def signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.signal(number)

    def kill(self) -> None:
        """At once, as a crash does."""
        self.signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def set(self, name: str, kind: str, *values: str, ttl: int = 1) -> None:
        """Let these be all records of a kind that `name`, relative to ZONE, has; none: it has none of them any more."""
        update = dns.update.UpdateMessage(ZONE)
        update.delete(name, kind)
        for value in values:
            update.add(name, ttl, kind, value)
        host, port = self.address
        answer = dns.query.tcp(update, host, port=port, timeout=WITHIN_S)
        assert answer.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(answer.rcode())


@contextmanager
def knot(folder: Path) -> Iterator[Knot]:
    """A server for as long as the context; its port stays its own while it is down."""
    require("knotd")
    with ReservedPort() as reserved:
        server = Knot(folder, reserved.number)
        try:
            yield server
        finally:
            server.stop()
