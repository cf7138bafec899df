"""A real Consul: one agent that keeps all in memory, or three servers, with ACLs or TLS where a test wants them.

Consul binds each port by itself, so every one is reserved first; it is ready when it has a leader, not when its port answers.
"""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from tests.patience import WITHIN_S
from tests.servers.ports import ReservedPort
from tests.servers.process import Server
from tests.servers.programs import require

ROOT_TOKEN: Final = "root-tok"
# `-grpc-port -1` and the second address families leave nothing on a port that was not reserved.
PORTS: Final = ("http", "dns", "serf_lan", "serf_wan", "server")
ACLS: Final = (
    'acl { enabled = true default_policy = "deny" '
    f'tokens {{ master = "{ROOT_TOKEN}" agent = "{ROOT_TOKEN}" }} }}'
)

Check = Mapping[str, object]


class Consul:
    """One agent; `name` is its node. It may be killed, stopped and started again on the same ports: with nothing in memory."""

    def __init__(
        self,
        name: str,
        folder: Path,
        ports: Mapping[str, int],
        options: Sequence[str],
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.ports = dict(ports)
        self.folder = folder
        self._options = options
        self._token = token
        self._tls = tls
        self._starts = 0
        self.server: Server | None = None

    @property
    def port(self) -> int:
        return self.ports["https" if self._tls else "http"]

    @property
    def address(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    # -- its life

    def start(self) -> None:
        """Start it; it listens, and may have no leader yet."""
        self._starts += 1
        folder = self.folder / f"start-{self._starts}"
        folder.mkdir(parents=True)
        ports = [
            word
            for name, port in self.ports.items()
            if name in PORTS
            for word in (f"-{name.replace('_', '-')}-port", str(port))
        ]
        command = [str(require("consul")), "agent", "-node", self.name, *COMMON, *ports, *self._options]
        self.server = Server(command, folder, {"http": self.port})

    def signal(self, number: signal.Signals) -> None:
        assert self.server is not None
        self.server.signal(number)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        server, self.server = self.server, None
        if server is not None:
            if server.process.poll() is None:
                server.signal(signal.SIGCONT)
                server.process.kill()  # a good-bye takes seconds, and nobody listens to it
            server.process.wait()

    def kill(self) -> None:
        self.stop()

    # -- what it is asked

    def ask(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **params: str
    ) -> Any:
        """One request to its API, which must succeed; the JSON of the answer, or its text. `raw` stands for the body as it is."""
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=WITHIN_S, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            text = raw if body is None else json.dumps(body)
            headers = {"X-Consul-Token": self._token} if self._token else {}
            query = f"?{urlencode(params)}" if params else ""
            connection.request(method, f"{path}{query}", text, headers)
            answer = connection.getresponse()
            said = answer.read().decode()
            assert answer.status == 200, (method, path, answer.status, said)
        finally:
            connection.close()
        try:
            return json.loads(said)
        except ValueError:
            return said

    def has_leader(self) -> bool:
        try:
            return bool(self.ask("GET", "/v1/status/leader"))
        except (OSError, http.client.HTTPException, AssertionError):
            return False

    def wait_for_leader(self) -> None:
        """Wait until there is a leader that has taken the node in: until then every service of it changes once more, by the node's own
        check."""
        deadline = time.monotonic() + WITHIN_S
        while not self.has_leader() or not self._is_taken_in():
            assert self.server is not None
            if self.server._ended_within(10):
                raise RuntimeError(f"consul ended:\n{self.server.output()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"consul has no leader:\n{self.server.output()}")

    def _is_taken_in(self) -> bool:
        try:
            return bool(self.ask("GET", f"/v1/health/node/{self.name}"))
        except (AssertionError, OSError):
            return self._token != ""  # where access is restricted, the token comes later than the leader

    def wait_for_acls(self) -> None:
        """Wait until the token may do something: ACLs come a moment after the leader."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                self.ask("GET", "/v1/acl/tokens")
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def token(self, rules: str, name: str = "lbproxy") -> str:
        """A new token with a policy of these rules; the text to show."""
        policy = self.ask("PUT", "/v1/acl/policy", {"Name": f"{name}-{time.monotonic_ns()}", "Rules": rules})
        made = self.ask("PUT", "/v1/acl/token", {"Description": name, "Policies": [{"ID": policy["ID"]}]})
        return str(made["SecretID"])

    # -- services, as their owners register them

    def register(
        self,
        port: int,
        *,
        service: str = "web",
        instance: str = "",
        address: str = "127.0.0.1",
        checks: Sequence[Check] = (),
        **more: object,
    ) -> str:
        """Register an instance; `more` are further keys of Consul's service definition. Returns its id."""
        name = instance or f"{service}-{port}"
        definition = {
            "Name": service,
            "ID": name,
            "Address": address,
            "Port": port,
            "Checks": list(checks),
            **more,
        }
        self.ask("PUT", "/v1/agent/service/register", definition)
        return name

    def deregister(self, instance: str) -> None:
        self.ask("PUT", f"/v1/agent/service/deregister/{quote(instance, safe='')}")

    def maintenance(self, instance: str, *, on: bool, reason: str = "") -> None:
        self.ask(
            "PUT",
            f"/v1/agent/service/maintenance/{quote(instance, safe='')}",
            enable="true" if on else "false",
            reason=reason,
        )

    def node_maintenance(self, *, on: bool, reason: str = "") -> None:
        self.ask("PUT", "/v1/agent/maintenance", enable="true" if on else "false", reason=reason)

    def set_check(self, check: str, status: str) -> None:
        """`status`: passing, warning or critical, of a check with a TTL."""
        self.ask("PUT", f"/v1/agent/check/update/{quote(check, safe='')}", {"Status": status, "Output": ""})


COMMON: Final = (
    *("-bind", "127.0.0.1", "-client", "127.0.0.1", "-grpc-port", "-1", "-log-level", "warn"),
    *("-hcl", "disable_update_check = true", "-hcl", "performance { raft_multiplier = 1 }"),
    *("-hcl", 'serf_lan = "127.0.0.1" serf_wan = "127.0.0.1"', "-hcl", "leave_on_terminate = false"),
)


def ttl(check: str, status: str = "passing") -> Check:
    """A check whose state the test sets, with a TTL that no test outlasts."""
    return {"CheckID": check, "Name": check, "TTL": "1h", "Status": status}


@contextmanager
def consul_agent(
    folder: Path, *, options: Sequence[str] = (), token: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[Consul]:
    """One agent with a leader: itself."""
    require("consul")
    with ExitStack() as reserved:
        names = (*PORTS, "https") if tls is not None else PORTS
        ports = {name: reserved.enter_context(ReservedPort()).number for name in names}
        extra = [word.replace("@https@", str(ports.get("https", -1))) for word in options]
        agent = Consul("one", folder, ports, ["-dev", *extra], token, tls)
        reserved.callback(agent.stop)
        agent.start()
        agent.wait_for_leader()
        yield agent


@contextmanager
def consul_servers(folder: Path, count: int = 3) -> Iterator[list[Consul]]:
    """Servers that have elected a leader, all of them known to each other."""
    require("consul")
    with ExitStack() as reserved:
        ports = [
            {name: reserved.enter_context(ReservedPort()).number for name in PORTS} for _ in range(count)
        ]
        join = [word for each in ports for word in ("-retry-join", f"127.0.0.1:{each['serf_lan']}")]
        servers = []
        for number, own in enumerate(ports):
            data = folder / f"data-{number}"
            options = [
                *("-server", "-bootstrap-expect", str(count), "-data-dir", str(data)),
                *("-retry-interval", "100ms", *join),
            ]
            server = Consul(f"server-{number}", folder / f"server-{number}", own, options)
            servers.append(server)
            reserved.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_for_leader()
        yield servers
