"""etcd: members on loopback ports, restarted, emptied, stopped and told what to do over its JSON gateway."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import shutil
import signal
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.patience import WITHIN_S
from tests.servers.certificates import Authority, Certificate
from tests.servers.ports import ReservedPort
from tests.servers.process import Server
from tests.servers.programs import require


class Etcd:
    """A cluster of one, or a member of one. It answers as soon as this object exists, and after `start`.

    With `authority` it speaks TLS, and wants a client certificate that the authority signed. Elections are fast. A member of a larger
    `cluster` (name -> port for peers) is there before it answers: that takes a majority.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority | None = None,
        name: str = "one",
        cluster: Mapping[str, ReservedPort] | None = None,
    ) -> None:
        self._program = require("etcd")
        self._folder = folder
        self._name = name
        self._client = ReservedPort()
        self._own = {} if cluster is not None else {name: ReservedPort()}
        self._cluster = cluster if cluster is not None else self._own
        self._numbers = itertools.count(1)
        self._authority = authority
        self._ours = authority.sign("localhost") if authority is not None else None
        self.client: Certificate | None = authority.sign("client") if authority is not None else None
        self.port = self._client.number
        self.url = f"{'http' if authority is None else 'https'}://127.0.0.1:{self.port}"
        self.token = ""
        self._server: Server | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    # -- its life

    def start(self) -> None:
        folder = self._folder / f"run-{next(self._numbers)}"
        folder.mkdir(parents=True)
        peers = {name: f"http://127.0.0.1:{port.number}" for name, port in self._cluster.items()}
        peer = peers[self._name]
        words = {
            "name": self._name,
            "data-dir": self._folder / "data",
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{name}={url}" for name, url in peers.items()),
            # One by itself needs no votes; of several, none must be taken for lost because the machine is busy.
            "heartbeat-interval": 10 if self._own else 100,
            "election-timeout": 50 if self._own else 1000,
            "logger": "zap",
        }
        if self._authority is not None and self._ours is not None:
            words |= {
                "cert-file": self._ours.certificate,
                "key-file": self._ours.key,
                "trusted-ca-file": self._authority.ca,
            }
            words["client-cert-auth"] = "true"
        command = [str(self._program), *(f"--{name}={value}" for name, value in words.items())]
        self._server = Server(command, folder, {"client": self.port})
        if self._own:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """A request that takes a leader, again and again."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                self.call("/v3/kv/range", {"key": _text("ready"), "count_only": True}, anonymous=True)
            except (AssertionError, OSError):
                if time.monotonic() > deadline:
                    raise
            else:
                return

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    def kill(self) -> None:
        self.server.signal(signal.SIGKILL)
        self.server.wait(WITHIN_S)

    def stop(self) -> None:
        """As a deployment would."""
        self.server.stop()

    def empty(self) -> None:
        """Forget everything; only while it does not run."""
        shutil.rmtree(self._folder / "data")

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
        for port in (self._client, *self._own.values()):
            port.close()

    # -- what it is told

    def call(self, path: str, body: Mapping[str, Any], *, anonymous: bool = False) -> dict[str, Any]:
        """One request to the gateway. `anonymous`: a refusal is an answer, too."""
        connection = self._connection()
        try:
            headers = {"Authorization": self.token} if self.token and not anonymous else {}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            assert answer.status == 200 or (anonymous and answer.status == 400), (path, answer.status, said)
            return dict(said)
        finally:
            connection.close()

    def put(self, key: str, value: str, lease: int = 0) -> int:
        """The revision it stands at."""
        answer = self.call("/v3/kv/put", {"key": _text(key), "value": _text(value), "lease": str(lease)})
        return int(answer["header"]["revision"])

    def delete(self, key: str) -> None:
        self.call("/v3/kv/deleterange", {"key": _text(key)})

    def transaction(self, puts: Mapping[str, str], deletes: tuple[str, ...] = ()) -> None:
        """All at one revision."""
        operations: list[dict[str, Any]] = [
            {"request_put": {"key": _text(key), "value": _text(value)}} for key, value in puts.items()
        ]
        operations += [{"request_delete_range": {"key": _text(key)}} for key in deletes]
        self.call("/v3/kv/txn", {"success": operations})

    def lease(self, seconds: int) -> int:
        return int(self.call("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def compact(self, revision: int) -> None:
        self.call("/v3/kv/compaction", {"revision": str(revision)})

    def user(self, name: str, password: str, prefix: str) -> None:
        """One who may read what begins with `prefix`."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        self.call("/v3/auth/user/add", {"name": name, "password": password})
        self.call("/v3/auth/role/add", {"name": name})
        permission = {"permType": "READ", "key": _text(prefix), "range_end": _text(end)}
        self.call("/v3/auth/role/grant", {"name": name, "perm": permission})
        self.call("/v3/auth/user/grant", {"user": name, "role": name})

    def enable_auth(self) -> None:
        """From now on it asks who is there; this object is root."""
        self.call("/v3/auth/user/add", {"name": "root", "password": "root"})
        self.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        self.call("/v3/auth/enable", {})
        self.log_in()

    def log_in(self) -> None:
        self.token = ""
        self.token = self.call("/v3/auth/authenticate", {"name": "root", "password": "root"})["token"]

    def _connection(self) -> http.client.HTTPConnection:
        if self._authority is None or self.client is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        context = ssl.create_default_context(cafile=self._authority.ca)
        # The authority has no key usage, as many private ones, and Python 3.13 would refuse it for that.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(self.client.certificate, self.client.key)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=WITHIN_S, context=context)


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextmanager
def etcd(folder: Path, authority: Authority | None = None) -> Iterator[Etcd]:
    member = Etcd(folder, authority)
    try:
        yield member
    finally:
        member.close()


@contextmanager
def etcd_cluster(folder: Path) -> Iterator[list[Etcd]]:
    """Three members that have elected a leader."""
    with ExitStack() as running:
        cluster = {name: running.enter_context(ReservedPort()) for name in ("one", "two", "three")}
        members = []
        for name in cluster:
            members.append(Etcd(folder / name, name=name, cluster=cluster))
            running.callback(members[-1].close)
        for member in members:
            member.wait_until_it_answers()
        yield members
