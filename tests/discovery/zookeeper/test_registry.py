"""Ephemeral nodes as endpoints, against a real ZooKeeper, in good times and in bad ones."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.zookeeper.options import ZooKeeperOptions
from lbproxy.discovery.zookeeper.registry import ZooKeeperRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.discovery.zookeeper.instances import instances, process_with_node
from tests.discovery.zookeeper.test_children import CURATOR
from tests.patience import WITHIN_S
from tests.servers.process import Server, serve
from tests.servers.programs import require
from tests.servers.restartable import Restartable
from tests.servers.zookeeper import restartable, zookeeper

pytestmark = [pytest.mark.foreign, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it as it is; each has a path of its own."""
    folder = tmp_path_factory.mktemp("zookeeper")
    with zookeeper(folder / "server", data=folder / "data") as running:
        yield running


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return f"/services/{request.node.name}"


@asynccontextmanager
async def registry(
    port: int, path: str, timeout_s: float = 10.0, **options: object
) -> AsyncIterator[ZooKeeperRegistry]:
    one = ZooKeeperRegistry(ZooKeeperOptions((f"127.0.0.1:{port}",), path, timeout_s, **options))  # type: ignore[arg-type]
    try:
        yield one
    finally:
        await one.close()


async def until(asked: ZooKeeperRegistry, *expected: str) -> Answer:
    """The answer that names just these; what is told before it may be on its way there."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            answer = await asked.next()
            if sorted(f"{each.host}:{each.port}" for each in answer.candidates) == sorted(expected):
                return answer


async def test_instances_come_change_and_go(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        assert await asked.next() == Answer(())  # nobody has ever been there
        await some.create(f"{path}/b", "10.0.0.2:80")
        assert await until(asked, "10.0.0.2:80") == Answer((Candidate("10.0.0.2", 80),), consistent=False)
        await some.create(f"{path}/10.0.0.1:80")
        await until(asked, "10.0.0.1:80", "10.0.0.2:80")
        await some.set(f"{path}/b", json.dumps({"address": "10.0.0.2:80", "weight": 5}))
        answer = await until(asked, "10.0.0.1:80", "10.0.0.2:80")
        assert [each.weight for each in answer.candidates] == [1, 5]
        await some.set(f"{path}/b", json.dumps({**CURATOR, "payload": {"weight": 7}}))
        answer = await until(asked, "10.0.0.1:80", "10.0.0.1:8080")
        assert [each.weight for each in answer.candidates] == [1, 7]
        await some.delete(f"{path}/b")
        await until(asked, "10.0.0.1:80")
        await some.delete(f"{path}/10.0.0.1:80")
        await until(asked)


async def test_what_is_unchanged_is_not_told_again(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        await some.create(f"{path}/a", "10.0.0.1:80")
        await until(asked, "10.0.0.1:80")
        async with asyncio.TaskGroup() as group:
            following = group.create_task(asked.next(), name="next")
            assert (await asked.confirm()).candidates == (Candidate("10.0.0.1", 80),)
            assert not following.done()
            await some.create(f"{path}/b", "10.0.0.2:80")
            assert len((await following).candidates) == 2


async def test_a_path_that_comes_with_the_first_and_goes_after_the_last(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        for _ in range(3):
            await until(asked)
            await some.create(f"{path}/a", "10.0.0.1:80")
            await until(asked, "10.0.0.1:80")
            await some.delete(f"{path}/a")
            await some.delete(path)


async def test_an_instance_that_dies_is_gone_with_its_session(server: Server, path: str) -> None:
    async with registry(server.port, path, 2 * WITHIN_S) as asked:
        process = await asyncio.to_thread(process_with_node, server.port, f"{path}/10.0.0.9:80", 1.0)
        try:
            await until(asked, "10.0.0.9:80")
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
        await until(asked)  # long before a session of ours would end


async def test_nobody_is_missed_while_many_come_and_go(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        await asked.next()
        changes = 0

        async def follow() -> None:
            nonlocal changes
            while True:
                await asked.next()
                changes += 1

        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(), name="follow")
            for number in range(300):
                await some.create(f"{path}/10.0.0.{number % 10}:80", str(number))
                if number % 10 < 9:
                    await some.delete(f"{path}/10.0.0.{number % 10}:80")
                else:
                    await some.set(f"{path}/10.0.0.9:80", f"10.1.0.{number // 10}:80")
                    if number < 290:
                        await some.delete(f"{path}/10.0.0.9:80")
            await some.create(f"{path}/last", "10.9.9.9:80")
            await asyncio.sleep(0)
            following.cancel()
        assert changes
        await until(asked, "10.1.0.29:80", "10.9.9.9:80")


async def test_who_is_cancelled_at_any_point_misses_nothing(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        await some.create(f"{path}/a", "10.0.0.255:80")
        await until(asked, "10.0.0.255:80")
        for number in range(40):
            await some.set(f"{path}/a", f"10.0.0.{number}:80")
            async with asyncio.TaskGroup() as group:
                task = group.create_task(asked.next(), name="next")
                for _ in range(number):
                    await asyncio.sleep(0)
                task.cancel()
            expected = (Candidate(f"10.0.0.{number}", 80),)
            if task.cancelled() or task.result().candidates != expected:
                await until(asked, f"10.0.0.{number}:80")


async def test_our_own_session_may_expire_and_no_change_is_missed(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        await some.create(f"{path}/a", "10.0.0.1:80")
        await until(asked, "10.0.0.1:80")
        assert asked._session is not None
        # Whoever has the session's password may end it.
        thief = KazooClient(f"127.0.0.1:{server.port}", client_id=asked._session._client.client_id)
        await asyncio.to_thread(thief.start)
        await asyncio.to_thread(thief.stop)
        thief.close()
        await some.create(f"{path}/b", "10.0.0.2:80")
        await some.set(f"{path}/a", "10.0.0.3:80")
        answer = await until(asked, "10.0.0.2:80", "10.0.0.3:80")
        assert not answer.regressed


async def test_what_may_not_be_read_is_an_error_and_with_the_password_it_is_read(
    server: Server, path: str
) -> None:
    acl = make_digest_acl("me", "s3cret", all=True)
    async with instances(server.port, auth_data=[("digest", "me:s3cret")]) as some:
        await some.create(path, ephemeral=False, acl=[acl])
        await some.create(f"{path}/a", "10.0.0.1:80", acl=[acl])
        async with registry(server.port, path) as asked:
            with pytest.raises(RegistryError, match="answered NoAuth"):
                await asked.next()
        async with registry(server.port, path, user="me", password=Secret(value="s3cret")) as asked:
            assert (await asked.next()).candidates == (Candidate("10.0.0.1", 80),)


async def test_a_thousand_are_read_and_one_percent_changes(server: Server, path: str) -> None:
    async with registry(server.port, path) as asked, instances(server.port) as some:
        transaction = some.client.transaction()
        await some.create(path, ephemeral=False)
        for number in range(1000):
            transaction.create(
                f"{path}/{number:04}", f"10.0.{number >> 8}.{number & 255}:80".encode(), ephemeral=True
            )
        await asyncio.to_thread(transaction.commit)
        answer = await asked.next()
        assert len(answer.candidates) == 1000
        for number in range(10):
            await some.set(f"{path}/{number:04}", f"10.9.9.{number}:80")
        async with asyncio.timeout(WITHIN_S):
            while sum(each.host.startswith("10.9.9.") for each in answer.candidates) < 10:
                answer = await asked.next()
        assert len(answer.candidates) == 1000


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Restartable]:
    """A server that a test may stop and start."""
    with ExitStack() as stack:
        yield Restartable(partial(restartable, tmp_path), stack)


async def test_a_restart_is_no_answer_and_then_everything_is_read_again(own: Restartable) -> None:
    async with registry(own.port, "/web", 30.0) as asked:
        async with instances(own.port) as some:
            await some.create("/web/a", "10.0.0.1:80", ephemeral=False)
            await until(asked, "10.0.0.1:80")
        async with asyncio.TaskGroup() as group:
            following = group.create_task(asked.next(), name="next")
            await own.stop()
            with pytest.raises(RegistryError):
                await asked.confirm()
            assert not following.done()
            await own.start()
            answer = await following
        assert answer == Answer((Candidate("10.0.0.1", 80),))
        async with instances(own.port) as some:
            await some.set("/web/a", "10.0.0.2:80")
            await until(asked, "10.0.0.2:80")


async def test_a_server_that_is_away_for_long_is_an_error_and_is_found_again(own: Restartable) -> None:
    async with registry(own.port, "/web", 1.0) as asked:
        async with instances(own.port) as some:
            await some.create("/web/a", "10.0.0.1:80", ephemeral=False)
            await until(asked, "10.0.0.1:80")
        await own.stop()
        for _ in range(2):
            async with asyncio.timeout(WITHIN_S):
                with pytest.raises(RegistryError, match="refused"):
                    await asked.next()
        await own.start()
        assert (await _after_errors(asked)).candidates == (Candidate("10.0.0.1", 80),)


async def test_a_server_that_comes_back_empty_is_read_and_said_to_have_forgotten(own: Restartable) -> None:
    async with registry(own.port, "/web", 1.0) as asked:
        async with instances(own.port) as some:
            for number in range(5):
                await some.create(f"/web/{number}", f"10.0.0.{number}:80", ephemeral=False)
            await until(asked, *(f"10.0.0.{number}:80" for number in range(5)))
        await own.stop()
        await own.start(empty=True)
        # It does not take a client that has seen more than it knows; so the session is given up.
        with pytest.raises(RegistryError):
            await asked.next()
        answer = await _after_errors(asked)
        assert answer == Answer((), regressed=True)
        assert not (await asked.confirm()).regressed


async def test_a_server_that_is_stopped_is_an_error_and_when_it_goes_on_it_is_read_again(
    own: Restartable,
) -> None:
    async with registry(own.port, "/web", 1.0) as asked:
        async with instances(own.port) as some:
            await some.create("/web/a", "10.0.0.1:80", ephemeral=False)
            await until(asked, "10.0.0.1:80")
        own.server.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(WITHIN_S):
                with pytest.raises(RegistryError):
                    await asked.next()
        finally:
            own.server.signal(signal.SIGCONT)
        assert (await _after_errors(asked)).candidates == (Candidate("10.0.0.1", 80),)
        async with instances(own.port) as some:
            await some.set("/web/a", "10.0.0.2:80")
            await until(asked, "10.0.0.2:80")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For `zk.internal`, vouched for by itself; key and certificate in one file."""
    file = tmp_path / "both.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=zk.internal -addext subjectAltName=DNS:zk.internal"
    command = [str(require("openssl")), *words.split(), "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


async def test_tls_is_checked_by_the_configured_authority_and_name(
    server: Server, path: str, certificate: Path, tmp_path: Path
) -> None:
    # A terminator before the server, as many an ensemble has one.
    listen = f"OPENSSL-LISTEN:@tls@,bind=127.0.0.1,reuseaddr,fork,cert={certificate},verify=0"
    command = [str(require("socat")), listen, f"TCP:127.0.0.1:{server.port}"]
    with serve(command, tmp_path / "socat") as terminator:
        async with instances(server.port) as some:
            await some.create(f"{path}/a", "10.0.0.1:80")
            for tls, well in (
                (TlsOptions(certificate, server_name="zk.internal"), True),
                (TlsOptions(certificate), False),
                (TlsOptions(server_name="zk.internal"), False),
                (TlsOptions(verify=False), True),
            ):
                async with registry(terminator.port, path, 1.0, tls=tls) as asked:
                    if well:
                        assert (await asked.next()).candidates == (Candidate("10.0.0.1", 80),)
                        await some.set(f"{path}/a", "10.0.0.2:80")
                        await until(asked, "10.0.0.2:80")
                        await some.set(f"{path}/a", "10.0.0.1:80")
                        continue
                    with pytest.raises(RegistryError, match="certificate verify failed"):
                        await asked.next()


async def _after_errors(asked: ZooKeeperRegistry) -> Answer:
    """As a follower does, but without its pauses."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await asked.next()
            except RegistryError:
                continue
