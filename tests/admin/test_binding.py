"""The admin interface's sockets: who owns the file, who may connect, what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.admin.binding import UnsafeBindError, require_safe
from lbproxy.admin.options import AdminOptions
from lbproxy.admin.server import AdminServer
from lbproxy.cli.client import AdminClient
from lbproxy.domain.address import Address, parse_address
from lbproxy.wire.secrets import Secret
from tests.admin.fake import LOOPBACK, FakeOperations, metrics, serving, unix


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.both_loops
async def test_a_socket_file_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "admin.sock"
    async with serving(FakeOperations(), AdminOptions(bind=unix(path))) as server:
        mode = path.stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        assert list(server.addresses) == [unix(path)]
    assert not path.exists()
    assert list(server.addresses) == []


def stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


async def test_the_socket_file_of_a_dead_owner_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    stale(path)
    path.chmod(0o666)
    async with serving(FakeOperations(), AdminOptions(bind=unix(path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_living_owner_keeps_its_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(FakeOperations(), AdminOptions(bind=unix(path))):
        with pytest.raises(OSError, match="somebody listens"):
            await AdminServer(FakeOperations(), metrics, AdminOptions(bind=unix(path))).start()
        assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is no socket"):
        await AdminServer(FakeOperations(), metrics, AdminOptions(bind=unix(path))).start()
    assert path.read_text() == "mine"


async def test_a_successors_socket_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(FakeOperations(), AdminOptions(bind=unix(path))):
        path.unlink()
        stale(path)
    assert path.exists()


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = Address("127.0.0.1", taken.getsockname()[1], "inet")
        server = AdminServer(FakeOperations(), metrics, AdminOptions(bind=LOOPBACK, metrics_bind=busy))
        with pytest.raises(OSError, match="in use") as caught:
            await server.start()
    assert server.addresses == ()
    assert caught.value.strerror is not None
    assert caught.value.strerror.startswith(f"cannot bind {busy}: Address already in use (held by ")
    assert f"(pid {os.getpid()})" in caught.value.strerror


async def test_closing_twice_is_fine() -> None:
    server = AdminServer(FakeOperations(), metrics, AdminOptions(bind=LOOPBACK))
    await server.start()
    await server.close()
    await server.close()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("127.0.0.1:9900", True),
        ("127.8.8.8:9900", True),
        ("[::1]:9900", True),
        ("unix:/run/lbproxy.sock", True),
        ("unix:@lbproxy", False),
        ("0.0.0.0:9900", False),
        ("[::]:9900", False),
        ("10.0.0.1:9900", False),
    ],
)
def test_what_others_can_reach_needs_a_token(text: str, safe: bool) -> None:
    address = parse_address(text)
    require_safe(address, token=True)
    if safe:
        require_safe(address, token=False)
    else:
        with pytest.raises(UnsafeBindError, match=r"needs admin\.token"):
            require_safe(address, token=False)


async def test_the_server_itself_refuses_an_open_address_without_a_token() -> None:
    with pytest.raises(UnsafeBindError):
        await AdminServer(FakeOperations(), metrics, AdminOptions(Address("0.0.0.0", 0, "inet"))).start()


async def test_no_browser_rules_apply_to_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    operations = FakeOperations()
    async with serving(operations, AdminOptions(bind=unix(path), token=Secret(value="t"))):
        client = AdminClient(f"unix:{path}", "t")
        assert await asyncio.to_thread(client.post, "/api/v1/drain") == {"draining": True}
    assert operations.told == [("drain",)]
