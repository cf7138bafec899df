"""How soon routing follows a registry: from the moment a plain client of the registry's own sees a change, to the first new connection
that goes where it should.

    python -m benchmarks.routed [--rounds N] [REGISTRY ...]     (30; every registry that is installed)

A registry is a `Subject` in a module of its own (`routed_consul.py`, `routed_etcd.py`, ...), and a line in SUBJECTS. A change is made in the middle of a steady row of
connections, one after the other; each hears from its endpoint which one it is. Both moments are counted from the start of the
change; *over* is their difference, negative where lbproxy was the first to know.
"""

from __future__ import annotations

import argparse
import multiprocessing
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol, Self

from benchmarks.routed_consul import consul
from benchmarks.routed_dns import dns_server
from benchmarks.routed_etcd import etcd
from benchmarks.routed_zookeeper import zookeeper
from tests.e2e.program import Program

ROUNDS: Final = 30
TARGET_MS: Final = 50.0
WITHIN_S: Final = 30.0
SETTLE_S: Final = 0.05
OPERATIONS: Final = ("register", "deregister", "maintenance", "weight")


class Subject(Protocol):
    """A registry that runs, and a service in it. Each operation has its opposite; `weight` makes the endpoint's 50 times what it was."""

    @property
    def discovery(self) -> str:
        """The source, in YAML's flow style."""

    @property
    def operations(self) -> Sequence[str]:
        """Of OPERATIONS, those that it knows."""

    def change(self, operation: str, port: int, *, back: bool = False) -> None:
        """Make the change, as an instance or an operator would; return when the registry has taken it."""

    def seen(self, operation: str, port: int) -> Callable[[], None]:
        """Begin to watch with a client of the registry's own; what is returned waits until it has seen the change."""


Start = Callable[[Path], AbstractContextManager[Subject | None]]
SUBJECTS: Final[dict[str, Start]] = {
    "consul": consul,
    "etcd": etcd,
    "zookeeper": zookeeper,
    "dns": dns_server,
}
"""Each gives None where its program is not installed."""


class Row:
    """Connections one after the other through the proxy; `heard` is when each was begun and which port answered."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.heard: list[tuple[float, int]] = []
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            with socket.create_connection(self._address, timeout=WITHIN_S) as connection:
                self.heard.append((began, int(connection.recv(16) or b"0")))

    def follows(self, operation: str, port: int, since: int, *, back: bool = False) -> float | None:
        """When routing followed, by what was heard from number `since` on; None when it has not (for certain)."""
        heard = self.heard[since:]
        if operation == "weight":
            # Of equal ones each comes once in two: three in a row show that it is no longer so; and the other way round.
            run = [each == port for _, each in heard]
            if back:
                last = max((at for at in range(len(run) - 1) if run[at] and run[at + 1]), default=-1)
                return heard[last + 2][0] if len(heard) > last + 20 else None
            return next((heard[at][0] for at in range(len(run) - 2) if all(run[at : at + 3])), None)
        if (operation == "register") != back:
            return next((began for began, each in heard if each == port), None)
        last = max((at for at, (_, each) in enumerate(heard) if each == port), default=-1)
        # Of two endpoints each comes at least once in two, so ten without it say that it is gone.
        return heard[last + 1][0] if len(heard) > last + 10 else None

    def wait(self, operation: str, port: int, since: int, *, back: bool = False) -> float:
        deadline = time.perf_counter() + WITHIN_S
        while (found := self.follows(operation, port, since, back=back)) is None:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"routing did not follow: {operation} of {port}")
            time.sleep(0.001)
        return found


def _endpoints(listening: Sequence[socket.socket]) -> None:
    """Tell each connection which port it has come to, and close it."""
    chosen = selectors.DefaultSelector()
    for each in listening:
        chosen.register(each, selectors.EVENT_READ)
    while True:
        for key, _ in chosen.select():
            assert isinstance(key.fileobj, socket.socket)
            connection, _ = key.fileobj.accept()
            with connection:
                connection.sendall(str(key.fileobj.getsockname()[1]).encode())


@contextmanager
def _two_endpoints() -> Iterator[list[int]]:
    listening = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2)]
    process = multiprocessing.get_context("fork").Process(target=_endpoints, args=(listening,), daemon=True)
    process.start()
    try:
        yield [each.getsockname()[1] for each in listening]
    finally:
        process.kill()
        process.join()
        for each in listening:
            each.close()


def _measure(subject: Subject, row: Row, port: int, operation: str, rounds: int) -> list[tuple[float, float]]:
    """(registry's own time, routing's time) in ms, a pair for each round."""
    found = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(rounds):
            seen = subject.seen(operation, port)
            watching = pool.submit(lambda seen=seen: (seen(), time.perf_counter())[1])  # type: ignore[misc]
            time.sleep(SETTLE_S)
            since, began = len(row.heard), time.perf_counter()
            subject.change(operation, port)
            routed = row.wait(operation, port, since)
            found.append(((watching.result() - began) * 1000, (routed - began) * 1000))
            since = len(row.heard)
            subject.change(operation, port, back=True)
            row.wait(operation, port, since, back=True)
    return found


def _rounds(subject: Subject, folder: Path, rounds: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    with _two_endpoints() as (stays, changes), ExitStack() as running:
        subject.change("register", stays)
        lbproxy = Program(
            folder / "lbproxy",
            "admin: {bind: '127.0.0.1:0'}\n"
            "log: {format: json, access: {enabled: false}}\n"
            "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
            f"upstreams: {{up: {{discovery: {subject.discovery}}}}}\n",
        )
        running.callback(lbproxy.kill)
        lbproxy.until(lbproxy.endpoints)
        row = running.enter_context(Row(lbproxy.address()))
        for operation in OPERATIONS:
            if operation not in subject.operations:
                continue
            if operation == "deregister":
                # Begins with two, and is the other way round: what it measures is the way there.
                subject.change("register", changes)
                row.wait("register", changes, 0)
            yield operation, _measure(subject, row, changes, operation, rounds)
            if operation == "register":
                time.sleep(SETTLE_S)


def _line(name: str, operation: str, pairs: Sequence[tuple[float, float]]) -> str:
    own = sorted(own for own, _ in pairs)
    over = sorted(routed - own for own, routed in pairs)
    routed = sorted(routed for _, routed in pairs)
    at95 = max(0, round(len(over) * 0.95) - 1)
    median = statistics.median(over)
    return (
        f"| {name} | {operation} | {statistics.median(own):.1f} | {statistics.median(routed):.1f} | {median:.1f} | {over[at95]:.1f} "
        f"| {'yes' if median <= TARGET_MS else 'NO'} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("registries", nargs="*", choices=[*SUBJECTS, []], metavar="REGISTRY")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(
        f"Milliseconds; median and 95th percentile of {given.rounds} rounds. Target: at most {TARGET_MS:g} over, in the median.\n"
    )
    print("| registry | change | the registry's own time | routed after | over: median | p95 | met |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    missed = False
    for name in given.registries or SUBJECTS:
        with tempfile.TemporaryDirectory() as folder, SUBJECTS[name](Path(folder)) as subject:
            if subject is None:
                print(f"{name} is not installed: left out", file=sys.stderr)
                continue
            for operation, pairs in _rounds(subject, Path(folder), given.rounds):
                print(_line(name, operation, pairs), flush=True)
                missed |= statistics.median(routed - own for own, routed in pairs) > TARGET_MS
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
