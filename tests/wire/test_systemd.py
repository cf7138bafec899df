"""sd_notify against a real datagram socket, inherited sockets in a real child process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lbproxy.wire.systemd import InheritError, Notifier, inherited
from tests.patience import WITHIN_S

REPOSITORY = Path(__file__).resolve().parents[2]


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address}

    def told(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@lbproxy-test-{os.getpid()}"
    running = Manager(address)
    with running.socket:
        yield running


def test_each_state_is_one_datagram(manager: Manager) -> None:
    notifier = Notifier(manager.environ, monotonic_ns=lambda: 12_345_678_999)
    assert notifier.ready("serving 2 listeners")
    assert notifier.reloading()
    assert notifier.ready()
    assert notifier.status("busy\nSTOPPING=1")
    assert notifier.stopping()
    assert manager.told() == [
        "READY=1\nSTATUS=serving 2 listeners",
        "RELOADING=1\nMONOTONIC_USEC=12345678",
        "READY=1",
        "STATUS=busy STOPPING=1",
        "STOPPING=1",
    ]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nothing_happens_without_a_manager(environ: dict[str, str]) -> None:
    notifier = Notifier(environ | {"WATCHDOG_USEC": "1000000"})
    assert not notifier.ready()
    assert notifier.watchdog_s is None


def test_a_manager_that_has_gone_is_logged_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "cannot tell the service manager READY=1" in caplog.text


def test_a_manager_that_does_not_read_holds_nobody_up(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(manager.environ)
    sent = 0
    while notifier.status("x" * 1000):
        sent += 1
    assert 0 < sent < 100_000
    assert "STATUS=" in caplog.text


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_this_process_or_not_at_all(
    manager: Manager, environ: dict[str, str], expected: float | None
) -> None:
    assert Notifier(manager.environ | environ).watchdog_s == expected


async def test_the_watchdog_is_fed_twice_an_interval(manager: Manager) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Notifier(manager.environ | {"WATCHDOG_USEC": "3000000"}).watchdog(sleep)
    assert waits == [1.5, 1.5, 1.5]
    assert manager.told() == ["WATCHDOG=1"] * 3


async def test_the_watchdog_ends_where_nobody_watches(manager: Manager) -> None:
    await Notifier(manager.environ).watchdog(asyncio.sleep)
    assert manager.told() == []


# What systemd-socket-activate does: the sockets become descriptors 3, 4, ..., and the process names itself in LISTEN_PID
# just before it becomes the service.
ACTIVATE = """
import os, sys
fds, names, program = eval(sys.argv[1]), sys.argv[2], sys.argv[3]
high = [os.dup2(fd, 100 + index) for index, fd in enumerate(fds)]
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index, inheritable=True)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execv(sys.executable, [sys.executable, "-c", program])
"""
SERVICE = """
import json, os
from lbproxy.wire.systemd import InheritError, inherited
try:
    found = [[n, s.fileno(), s.getsockname(), s.get_inheritable()] for n, s in inherited(os.environ)]
except InheritError as error:
    found = str(error)
print(json.dumps(found))
"""


def activate(descriptors: Sequence[int], names: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATE, repr(list(descriptors)), names, SERVICE],
        pass_fds=descriptors,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=WITHIN_S,
    )
    return json.loads(done.stdout)


def test_inherited_sockets_come_with_their_names_and_go_no_further(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.socket(socket.AF_UNIX) as local,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        local.bind(str(tmp_path / "local"))
        local.listen()
        found = activate([web.fileno(), local.fileno(), other.fileno()], "web:local")
        assert found == [
            ["web", 3, list(web.getsockname()), False],
            ["local", 4, str(tmp_path / "local"), False],
            ["unknown", 5, list(other.getsockname()), False],
        ]


def test_what_does_not_listen_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        found = activate([web.fileno(), datagrams.fileno()], "web:dns")
        assert found == "descriptor 4 (dns) is no listening stream socket"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "2", "LISTEN_PID": ""},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_for_another_process_are_left_alone(environ: dict[str, str]) -> None:
    assert inherited(environ) == []


@pytest.mark.parametrize("count", ["", "-1", "many", "99999", "٣"])
def test_a_senseless_number_of_sockets_is_told(count: str) -> None:
    with pytest.raises(InheritError, match="LISTEN_FDS"):
        inherited({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})
