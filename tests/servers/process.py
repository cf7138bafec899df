"""A program of others as a child process: started, waited for, and ended by its process id."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort, listening
from tests.servers.programs import find

END_WITHIN_S = 20.0
LOOK_AGAIN_MS = 5

PORT_TOKEN = re.compile(r"@([a-z][a-z0-9_]*)@")


class Server:
    """A running program. It listens on every port of `ports` (name -> number) as soon as this object exists.

    `network` is the mount of the network namespace that `command` enters, if it enters one.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, ports: Mapping[str, int], network: Path | None = None
    ) -> None:
        self.ports = dict(ports)
        self._network = network
        self.log = folder / "output.log"
        # If the test run is killed, its servers end too (where setpriv is); else they would stay.
        setpriv = find("setpriv")
        prefix = [str(setpriv), "--pdeathsig", "SIGTERM"] if setpriv else []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_listening()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        """The port of a server that has one."""
        (port,) = self.ports.values()
        return port

    def output(self) -> str:
        """What the program has written to stdout and stderr so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it. After SIGSTOP the program stands still when this returns."""
        send(self.process, number)

    def wait(self, within_s: float) -> int:
        """The exit status, once the program has ended. Raises TimeoutError."""
        if not self._ended_within(int(within_s * 1000)):
            raise TimeoutError(f"{self.process.args!r} still runs after {within_s} s")
        return self.process.wait()

    def stop(self) -> None:
        """End the program, and wait until it has gone: asked first, then killed."""
        if self.process.poll() is None:
            self.process.terminate()
            if not self._ended_within(int(END_WITHIN_S * 1000)):
                self.process.kill()
            self.process.wait()

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        waiting_for = dict(self.ports)
        while waiting_for:
            # The wait ends early when the program does: its output then says why.
            if self._ended_within(LOOK_AGAIN_MS):
                raise RuntimeError(
                    f"{self.process.args!r} ended with {self.process.wait()}:\n{self.output()}"
                )
            waiting_for = {name: port for name, port in waiting_for.items() if not self._listens_on(port)}
            if waiting_for and time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.process.args!r} does not listen on {waiting_for}:\n{self.output()}"
                )

    def _listens_on(self, port: int) -> bool:
        if self._network is not None:
            try:
                if not self._network.samefile(f"/proc/{self.pid}/ns/net"):
                    return False  # on its way in: the port it sees is still somebody else's
            except OSError:
                return False  # it has ended, which the caller sees next
        return listening(port, self.pid)

    def _ended_within(self, timeout_ms: int) -> bool:
        if self.process.poll() is not None:
            return True
        end = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            return bool(poll.poll(timeout_ms))
        finally:
            os.close(end)


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal; SIGSTOP has happened when this returns. (The call itself does not wait for it, and threads on other processors
    go on for a moment: long enough for an answer that a test counts on never to come.)"""
    process.send_signal(number)
    if number is signal.SIGSTOP:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)


@contextmanager
def serve(
    command: Sequence[str], folder: Path, *, config: str = "", config_file: str = "config"
) -> Iterator[Server]:
    """Run a program with a configuration; every `@name@` in both stands for a loopback port chosen now.

    The configuration is written to `config_file` in `folder`, which is also the program's working directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as reserved:
        ports: dict[str, int] = {}
        for name in PORT_TOKEN.findall("\n".join([*command, config])):
            if name not in ports:
                ports[name] = reserved.enter_context(ReservedPort()).number

        def filled_in(text: str) -> str:
            return PORT_TOKEN.sub(lambda match: str(ports[match.group(1)]), text)

        if config:
            (folder / config_file).write_text(filled_in(config))
        server = Server([filled_in(word) for word in command], folder, ports)
        try:
            yield server
        finally:
            server.stop()
