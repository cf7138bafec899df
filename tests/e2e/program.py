"""lbproxy as its users run it: a child process with a configuration file, its log, its admin address and its ports."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.patience import WITHIN_S
from tests.servers.netns import Namespace
from tests.servers.process import send
from tests.servers.programs import find

LOOK_AGAIN_MS: Final = 5
ADMIN_LINE: Final = re.compile(r"""lbproxy\.app(?::|", "message":) "?admin: ([^\s",]+)["\n,]""")
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

Json = dict[str, Any]


class Program:
    """A running `lbproxy run`. It serves as soon as this object exists.

    `nofile` is its limit of open files, `netns` the network namespace it lives in, `wrap` what stands before its command,
    `token` what `ask` shows to the admin interface, `further` more of what `-c` takes, `run` the command that stands for `lbproxy run`.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        nofile: int | None = None,
        netns: Namespace | None = None,
        environ: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
        stdin: socket.socket | None = None,
        token: str = "",
        further: Sequence[Path | str] = (),
        run: Sequence[str] = (),
        start_within_s: float = WITHIN_S,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "lbproxy.yaml"
        self.log = folder / "stderr.log"
        self.write(config)
        self._netns = netns
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        files = [word for file in (self.file, *further) for word in ("-c", str(file))]
        command = [*wrap, *(run or (sys.executable, "-m", "lbproxy", "run")), *files]
        if nofile is not None:
            command = ["prlimit", f"--nofile={nofile}:{nofile}", "--", *command]
        setpriv = find("setpriv")  # if the test run is killed, the program ends too
        command = [*([str(setpriv), "--pdeathsig", "SIGKILL"] if setpriv else []), *command]
        if netns is not None:
            command = netns.command(command)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=stdin.fileno() if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **(environ or {})},
            )
        self._end = os.pidfd_open(self.process.pid)
        self._ports: dict[str, list[int]] = {}
        try:
            self.until(lambda: self._admin_address() != "", start_within_s)
        except BaseException:
            self.kill()
            raise
        self.admin = self._admin_address()

    @property
    def pid(self) -> int:
        return self.process.pid

    def write(self, config: str) -> None:
        """Replace the configuration file at once, as an editor or a deployment does."""
        beside = self.file.with_suffix(".new")
        beside.write_text(config)
        beside.replace(self.file)

    # -- what it says

    def stderr(self) -> str:
        """All of its output so far."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[Json]:
        """Its log, a JSON object a line; a line that is still being written is left out."""
        text = self.stderr()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def said(self, words: str) -> bool:
        """Whether an event of its log contains the words."""
        return any(words in line.get("message", "") for line in self.lines())

    def ended(self) -> list[Json]:
        """The access log so far: the sessions that have ended."""
        return [line for line in self.lines() if line.get("event") == "end"]

    def _admin_address(self) -> str:
        found = ADMIN_LINE.search(self.stderr())
        return found.group(1) if found else ""

    # -- what it answers

    def ask(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        admin: str | None = None,
    ) -> tuple[int, bytes]:
        """One request to the admin interface: the status and the body."""
        host, _, port = (admin or self.admin).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN_S)
        given = self._headers if headers is None else dict(headers)
        if body is not None:
            given = {"Content-Type": "application/json", **given}
        try:
            if self._netns is not None:
                with self._netns.inside():
                    connection.connect()
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of an answer that must be a good one."""
        status, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def post(self, path: str, **body: object) -> Json:
        """The JSON of an order that must be carried out."""
        status, answer = self.ask("POST", path, json.dumps(body) if body else None)
        assert status in {200, 202}, (path, status, answer)
        return dict(json.loads(answer))

    def order(self, upstream: str, port: int, what: str, **body: object) -> Json:
        """drain, undrain or weight for the endpoint on a port of 127.0.0.1."""
        return self.post(f"/api/v1/upstreams/{upstream}/endpoints/127.0.0.1%3A{port}/{what}", **body)

    def ready(self) -> bool:
        return self.ask("GET", "/readyz")[0] == 200

    def address(self, listener: str = "in") -> tuple[str, int]:
        """Where a listener really listens (its first bind)."""
        return ("127.0.0.1", self.ports(listener)[0])

    def ports(self, listener: str) -> list[int]:
        if listener not in self._ports:
            for one in self.get("/api/v1/listeners")["items"]:
                self._ports[one["name"]] = [int(bind.rpartition(":")[2]) for bind in one["binds"]]
        return self._ports[listener]

    def endpoints(self, upstream: str = "up") -> dict[int, Json]:
        """An upstream's endpoints by port."""
        found = self.get(f"/api/v1/upstreams/{upstream}?limit=500")["endpoints"]
        return {int(each["address"].rpartition(":")[2]): each for each in found}

    def sessions(self) -> list[Json]:
        """Live sessions, at most a page of them."""
        return list(self.get("/api/v1/sessions?limit=500")["items"])

    def active(self) -> int:
        """Live sessions over all listeners."""
        return sum(one["active"] for one in self.get("/api/v1/listeners")["items"])

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics by its name and labels."""
        _, text = self.ask("GET", "/metrics")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        wanted = labels.items()
        return sum(
            value for (found, has), value in self.metrics().items() if found == name and wanted <= set(has)
        )

    # -- what the kernel knows about it

    def fds(self) -> int:
        """Its open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def sockets(self) -> int:
        """Its open sockets: what sessions are made of."""
        count = 0
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                count += os.readlink(f"/proc/{self.pid}/fd/{name}").startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def cpu_s(self) -> float:
        """The processor time it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def memory_bytes(self) -> int:
        """Its resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    # -- its life

    def until(self, condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Wait until something is true of the program. Raises when it ends meanwhile, or is not in time."""
        deadline = time.monotonic() + within_s
        while not condition():
            if self._ended_within(LOOK_AGAIN_MS):
                raise RuntimeError(f"lbproxy ended with {self.process.wait()}:\n{self.stderr()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within_s} s; lbproxy said:\n{self.stderr()}")

    def ends_within(self, seconds: float) -> bool:
        return self._ended_within(int(seconds * 1000))

    def passes(self, seconds: float) -> None:
        """Let real time pass, in a test whose subject is time; raises when the program ends meanwhile."""
        if self._ended_within(int(seconds * 1000)):
            raise RuntimeError(f"lbproxy ended with {self.process.wait()}:\n{self.stderr()}")

    def signal(self, number: signal.Signals) -> None:
        """Send it. After SIGSTOP the program stands still when this returns."""
        send(self.process, number)

    def wait(self, within_s: float = WITHIN_S) -> int:
        """The exit status, once it has ended. Raises TimeoutError."""
        if not self._ended_within(int(within_s * 1000)):
            raise TimeoutError(f"lbproxy still runs after {within_s} s:\n{self.stderr()}")
        return self.process.wait()

    def stop(self, within_s: float = 2.0) -> int:
        """SIGTERM, and a second one should sessions of the test hold it up; the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            if not self._ended_within(int(within_s * 1000)):
                self.signal(signal.SIGTERM)
            self.wait()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL; frees what this object holds of the process. Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._end != -1:
            os.close(self._end)
            self._end = -1

    def _ended_within(self, timeout_ms: int) -> bool:
        if self.process.poll() is not None:
            return True
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(timeout_ms))


@contextmanager
def program(folder: Path, config: str, **settings: Any) -> Iterator[Program]:
    """Run the program; at the end it must still be there, end well by SIGTERM, and have had no accident.

    A test that ends it itself finds that respected: then its exit status is the test's own matter.
    """
    running = Program(folder, config, **settings)
    try:
        yield running
        ended_before = running.process.poll() is not None
        status = running.stop()
        assert ended_before or status == 0, f"exit status {status}"
        assert "Traceback" not in running.stderr()
    finally:
        running.kill()
        print(f"--- lbproxy (pid {running.pid}) said:\n{_worth_reading(running.stderr())}")  # noqa: T201  shown on failure


def _worth_reading(log: str) -> str:
    """Its events, and only the last sessions: a person reads it when a test has failed."""
    lines = log.splitlines()
    sessions = [number for number, line in enumerate(lines) if '"event": "end"' in line]
    hidden = set(sessions[:-10])
    return "\n".join(line for number, line in enumerate(lines) if number not in hidden)[-20_000:]


def lbproxy(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "lbproxy", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
        env={**os.environ, **environ},
    )


def config(
    endpoints: Sequence[int | str],
    *,
    listener: str = "",
    upstream: str = "",
    more: str = "",
    bind: str = "127.0.0.1:0",
) -> str:
    """One listener `in` before one upstream `up`. An endpoint is a port of 127.0.0.1, or the inside of an endpoint's
    own mapping; `listener` and `upstream` are further keys in YAML's flow style, `more` is whole sections."""
    written = [f'"127.0.0.1:{one}"' if isinstance(one, int) else f"{{{one}}}" for one in endpoints]
    admin = "" if "admin:" in more else "admin: {bind: '127.0.0.1:0'}\n"
    return (
        f"{admin}{more}\n"
        f"listeners: {{in: {{bind: '{bind}', upstream: up{', ' if listener else ''}{listener}}}}}\n"
        f"upstreams: {{up: {{endpoints: [{', '.join(written)}]{', ' if upstream else ''}{upstream}}}}}\n"
    )
