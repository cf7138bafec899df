"""A network namespace of a test's own: its own loopback, ports, routes and packet filter."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.patience import WITHIN_S
from tests.servers.process import Server
from tests.servers.programs import missing, require, require_root

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)

_numbers = itertools.count(1)


class Namespace:
    """A network namespace with loopback up. What runs in it is ended with it."""

    def __init__(self, name: str, ip: Path, folder: Path, servers: ExitStack) -> None:
        self.name = name
        self._ip = ip
        self._folder = folder
        self._servers = servers

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in the namespace (as the same process: `ip` replaces itself)."""
        return [str(self._ip), "netns", "exec", self.name, *command]

    def run(
        self, command: Sequence[str], *, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `text` as its input. Raises CalledProcessError, with its output as a note."""
        done = subprocess.run(
            self.command(command),
            input=text if text is not None else "",
            text=True,
            capture_output=True,
            check=False,
            timeout=WITHIN_S,
        )
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr)
            error.add_note(done.stdout + done.stderr)
            raise error
        return done

    def nft(self, rules: str) -> None:
        """Load packet filter rules (nft's own language) into the namespace."""
        self.run([str(require("nft")), "-f", "-"], text=rules)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile belong to the namespace, wherever they are used."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(Path("/run/netns", self.name), os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)

    def serve(self, command: Sequence[str], ports: Mapping[str, int]) -> Server:
        """Start a server in the namespace; it listens on all of `ports` when this returns, and ends with the test."""
        folder = self._folder / f"server-{next(_numbers)}"
        folder.mkdir(parents=True)
        server = Server(self.command(command), folder, ports, network=Path("/run/netns", self.name))
        self._servers.callback(server.stop)
        return server


@contextmanager
def network_namespace(folder: Path) -> Iterator[Namespace]:
    """A new namespace, removed at the end. Needs root (else the test is skipped; with CI=true it fails)."""
    require_root()
    ip = require("ip")
    name = f"lbproxy-{os.getpid()}-{next(_numbers)}"
    _ask(ip, "netns", "add", name)
    try:
        _ask(ip, "-n", name, "link", "set", "lo", "up")
        with ExitStack() as servers:
            yield Namespace(name, ip, folder, servers)
    finally:
        subprocess.run([ip, "netns", "delete", name], check=True)


def _enter(network: int) -> None:
    if _libc.setns(network, CLONE_NEWNET) != 0:  # os.setns comes with Python 3.12
        raise OSError(ctypes.get_errno(), "setns")


def _ask(ip: Path, *words: str) -> None:
    """Run an `ip` command that the machine may refuse (a container without the rights, a chroot)."""
    done = subprocess.run([ip, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"no network namespace can be used here: ip {' '.join(words)}: {done.stderr.strip()}")
