"""The registry against a real etcd."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.discovery.etcd.registry import EtcdRegistry
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import HttpClient
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions
from tests.patience import WITHIN_S
from tests.servers.certificates import Authority
from tests.servers.etcd import Etcd, etcd_cluster
from tests.servers.etcd import etcd as run_etcd

PREFIX = "/services/web/"

pytestmark = pytest.mark.foreign


@asynccontextmanager
async def following(etcd: Etcd | str, **options: Any) -> AsyncIterator[EtcdRegistry]:
    address = etcd if isinstance(etcd, str) else etcd.url
    given = EtcdOptions(PREFIX, (address,), timeout_s=20.0)
    http = HttpClient()
    registry = EtcdRegistry(replace(given, **options), http, time.monotonic, random.Random(1))
    try:
        yield registry
    finally:
        await registry.close()
        await http.close()


def hosts(answer: Answer) -> list[str]:
    return [candidate.host for candidate in answer.candidates]


async def until(
    registry: EtcdRegistry, wanted: Callable[[Answer], bool], errors: list[RegistryError] | None = None
) -> Answer:
    """The first answer that is as wanted; errors are collected, where that is allowed."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                answer = await registry.next()
            except RegistryError as error:
                if errors is None:
                    raise
                errors.append(error)
                await asyncio.sleep(0)
                continue
            if wanted(answer):
                return answer


async def test_what_is_put_and_deleted_is_followed(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}b", "10.0.0.2:80")
    etcd.put(f"{PREFIX}a", '{"address": "10.0.0.1:80", "weight": 3}')
    etcd.put("/services/web-admin/a", "10.0.0.9:80")
    async with following(etcd) as registry:
        first = await registry.next()
        assert hosts(first) == ["10.0.0.1", "10.0.0.2"]
        assert first.consistent
        assert not first.regressed
        assert first.candidates[0].weight == 3
        etcd.put(f"{PREFIX}aa", "10.0.0.3:80")
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]
        etcd.delete(f"{PREFIX}b")
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.3"]
        assert hosts(await registry.confirm()) == ["10.0.0.1", "10.0.0.3"]


async def test_nothing_under_the_prefix_is_an_empty_answer(etcd: Etcd) -> None:
    async with following(etcd) as registry:
        assert (await registry.next()).candidates == ()


async def test_a_key_whose_lease_expires_is_gone(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    etcd.put(f"{PREFIX}b", "10.0.0.2:80", lease=etcd.lease(1))
    async with following(etcd) as registry:
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
        assert hosts(await until(registry, lambda answer: len(answer.candidates) == 1)) == ["10.0.0.1"]


async def test_a_transaction_is_one_answer(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}old", "10.0.0.1:80")
    async with following(etcd) as registry:
        await registry.next()
        many = {f"{PREFIX}{number:03}": f"10.0.1.{number}:80" for number in range(100)}
        etcd.transaction(many, (f"{PREFIX}old",))
        assert hosts(await registry.next()) == [f"10.0.1.{number}" for number in range(100)]


async def test_many_keys_are_listed_in_pages_of_one_revision(etcd: Etcd) -> None:
    for block in range(10):
        numbers = range(block * 100, block * 100 + 100)
        etcd.transaction(
            {f"{PREFIX}{number:04}": f"10.0.{number // 250}.{number % 250}:80" for number in numbers}
        )
    async with following(etcd) as registry:
        assert len((await registry.next()).candidates) == 1000


async def test_a_thousand_changes_under_compaction_are_neither_lost_nor_resurrected(etcd: Etcd) -> None:
    """Also while the follower is slow, so that its watch starts at a revision that is compacted by then."""
    rng = random.Random(7)
    there: dict[str, str] = {}
    async with following(etcd) as registry:
        await registry.next()
        listed = 0
        for change in range(1000):
            key = f"{PREFIX}{rng.randrange(40):02}"
            if key in there and rng.random() < 0.4:
                etcd.delete(key)
                del there[key]
            else:
                there[key] = f"10.1.{change // 250}.{change % 250}"
                revision = etcd.put(key, f"{there[key]}:80")
            if change % 100 == 99:
                etcd.compact(revision)
            if change % 7 == 0:
                answer = await registry.next()
                listed += answer.consistent
        expected = [there[key] for key in sorted(there)]
        last = await until(registry, lambda answer: hosts(answer) == expected)
        assert hosts(await registry.confirm()) == expected == hosts(last)


async def test_a_watch_that_starts_before_a_compaction_lists_again(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd) as registry:
        await registry.next()
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        etcd.delete(f"{PREFIX}a")
        etcd.compact(etcd.put(f"{PREFIX}c", "10.0.0.3:80"))  # the watch has not begun yet
        answer = await registry.next()
        assert hosts(answer) == ["10.0.0.2", "10.0.0.3"]
        assert answer.consistent
        assert not answer.regressed


async def test_killed_and_started_again_it_is_an_error_and_then_the_same(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd) as registry:
        await registry.next()
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        await registry.next()
        etcd.kill()
        with pytest.raises(RegistryError, match=etcd.url):
            await registry.next()
        with pytest.raises(RegistryError, match=etcd.url):
            await registry.next()
        etcd.start()
        answer = await registry.next()
        assert hosts(answer) == ["10.0.0.1", "10.0.0.2"]
        assert not answer.regressed


async def test_ended_as_a_deployment_does_the_stream_says_so(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd) as registry:
        await registry.next()
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        await registry.next()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(etcd.stop), name="stop etcd")
            with pytest.raises(RegistryError):
                await registry.next()
        etcd.start()
        assert len((await registry.next()).candidates) == 2


async def test_one_that_forgot_everything_is_called_regressed(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd) as registry:
        await registry.next()
        etcd.kill()
        etcd.empty()
        etcd.start()
        answer = await registry.next()
        assert answer.regressed
        assert answer.candidates == ()
        assert not (await registry.confirm()).regressed


async def test_a_stopped_one_is_noticed_and_followed_again_when_it_goes_on(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd, quiet_s=0.2, timeout_s=1.0) as registry:
        await registry.next()
        assert hosts(await registry.next()) == ["10.0.0.1"]  # silence, looked after
        etcd.server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(RegistryError, match="no full answer within"):
                await registry.next()
            with pytest.raises(RegistryError, match="no full answer within"):
                await registry.next()
        finally:
            etcd.server.signal(signal.SIGCONT)
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        answer = await until(registry, lambda answer: len(answer.candidates) == 2, [])
        assert not answer.regressed


async def test_silence_is_looked_after_and_says_that_all_is_well(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd, quiet_s=0.05) as registry:
        answers = [await registry.next() for _ in range(4)]
        assert {tuple(hosts(answer)) for answer in answers} == {("10.0.0.1",)}
        assert [answer.consistent for answer in answers] == [True, False, False, False]


async def test_what_is_written_elsewhere_is_no_news_and_what_is_written_here_is(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd, quiet_s=0.05) as registry:
        before = (await registry.next(), registry._seen)[1]
        assert before is not None
        etcd.put("/elsewhere", "1")
        assert not (await registry.next()).consistent
        assert registry._seen == (before[0], before[1] + 1)
        assert not await registry._gateway.has_news(before[1])
        etcd.put(f"{PREFIX}a", "10.0.0.2:80")
        assert await registry._gateway.has_news(before[1] + 1)
        assert not await registry._gateway.has_news(before[1] + 2)
        await until(registry, lambda answer: hosts(answer) == ["10.0.0.2"])


async def test_everything_is_read_again_from_time_to_time(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd, resync_s=0.1) as registry:
        assert [(await registry.next()).consistent for _ in range(3)] == [True, True, True]


async def test_the_next_member_is_asked_after_an_error(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    dead = "http://127.0.0.1:1"
    errors: list[RegistryError] = []
    async with following(etcd, addresses=(dead, etcd.url)) as registry:
        assert hosts(await until(registry, lambda _: True, errors)) == ["10.0.0.1"]
        assert len(errors) <= 1
        assert all(dead in str(error) for error in errors)


async def test_a_member_that_lost_its_cluster_says_so_and_another_one_is_asked(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path / "etcd") as members:
        members[0].put(f"{PREFIX}a", "10.0.0.1:80")
        async with following(members[0], timeout_s=5.0) as registry:
            await registry.next()
            members[0].put(f"{PREFIX}b", "10.0.0.2:80")
            await registry.next()
            for each in members[1:]:
                each.kill()
            with pytest.raises(RegistryError, match="no leader"):
                await (
                    registry.next()
                )  # within moments, while the stream of a careless client would stay silent
            with pytest.raises(RegistryError, match="no leader"):
                await registry.confirm()
        members[1].start()
        members[1].wait_until_it_answers()
        both = (members[2].url, members[1].url)
        async with following(members[0], addresses=both, timeout_s=5.0) as registry:
            assert len((await until(registry, lambda _: True, [])).candidates) == 2


async def test_with_authentication_the_token_is_fetched_and_renewed(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    etcd.user("reader", "secret", PREFIX)
    etcd.enable_auth()
    async with following(etcd, username="reader", password=Secret(value="secret")) as registry:
        assert hosts(await registry.next()) == ["10.0.0.1"]
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
        # Tokens of the simple kind live in memory: after a restart nobody knows them.
        etcd.kill()
        etcd.start()
        await until(registry, lambda answer: len(answer.candidates) == 2, [])
        etcd.log_in()
        etcd.put(f"{PREFIX}c", "10.0.0.3:80")
        assert len((await registry.next()).candidates) == 3


async def test_a_token_that_nobody_knows_is_renewed(etcd: Etcd) -> None:
    etcd.user("reader", "secret", PREFIX)
    etcd.enable_auth()
    async with following(etcd, username="reader", password=Secret(value="secret"), quiet_s=0.05) as registry:
        await registry.next()
        registry._gateway._token = "forgotten.1"
        await registry.next()  # opens the watch
        registry._gateway._token = "forgotten.1"
        await registry.next()  # looks after it
        assert registry._gateway._token != "forgotten.1"


async def test_a_token_from_before_a_loss_of_memory_holds_up_one_request_only(etcd: Etcd) -> None:
    etcd.user("reader", "secret", PREFIX)
    etcd.enable_auth()
    options = {"username": "reader", "password": Secret(value="secret"), "timeout_s": 2.5}
    async with following(etcd, **options) as registry:
        await registry.next()
        registry._gateway._token = "forgotten.1000000"  # etcd waits for its log to come that far
        with pytest.raises(RegistryError, match="no full answer within"):
            await registry.next()
        assert (await registry.next()).candidates == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "wants a username and a password"),
        ({"username": "reader", "password": Secret(value="wrong")}, "invalid user ID or password"),
        ({"username": "other", "password": Secret(value="secret")}, "permission denied"),
        ({"username": "reader", "password": Secret(path=Path("/nowhere"))}, "/nowhere"),
    ],
)
async def test_who_may_not_read_gets_an_error_and_never_an_empty_answer(
    etcd: Etcd, options: dict[str, Any], said: str
) -> None:
    etcd.user("reader", "secret", PREFIX)
    etcd.user("other", "secret", "/elsewhere/")
    etcd.enable_auth()
    async with following(etcd, **options) as registry:
        for ask in (registry.next, registry.confirm):
            with pytest.raises(RegistryError, match=said):
                await ask()


async def test_a_permission_that_was_taken_away_is_noticed_in_silence(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    etcd.user("reader", "secret", PREFIX)
    etcd.enable_auth()
    async with following(etcd, username="reader", password=Secret(value="secret"), quiet_s=0.05) as registry:
        await registry.next()
        await registry.next()
        etcd.call("/v3/auth/user/revoke", {"name": "reader", "role": "reader"})
        with pytest.raises(RegistryError, match="permission denied"):
            await until(registry, lambda _: False)


async def test_credentials_for_a_cluster_without_users_do_no_harm(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    async with following(etcd, username="reader", password=Secret(value="secret")) as registry:
        assert hosts(await registry.next()) == ["10.0.0.1"]
        etcd.put(f"{PREFIX}b", "10.0.0.2:80")
        assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]


async def test_tls_with_a_certificate_of_ours(tmp_path: Path, authority: Authority) -> None:
    with run_etcd(tmp_path / "etcd", authority) as etcd:
        etcd.put(f"{PREFIX}a", "10.0.0.1:80")
        ours = etcd.client
        assert ours is not None
        good = TlsOptions(ca=authority.ca, certificate=ours.certificate, key=ours.key)
        async with following(etcd, tls=good) as registry:
            assert hosts(await registry.next()) == ["10.0.0.1"]
            etcd.put(f"{PREFIX}b", "10.0.0.2:80")
            assert hosts(await registry.next()) == ["10.0.0.1", "10.0.0.2"]
        foreign = Authority(tmp_path / "foreign")
        for wrong in (
            TlsOptions(ca=authority.ca),  # no certificate of ours
            TlsOptions(ca=foreign.ca, certificate=ours.certificate, key=ours.key),
            TlsOptions(ca=tmp_path / "missing.crt"),
            replace(good, server_name="elsewhere.example"),
        ):
            async with following(etcd, tls=wrong) as registry:
                with pytest.raises(RegistryError, match=etcd.url):
                    await registry.next()


async def test_it_can_be_cancelled_anywhere_and_asked_again(etcd: Etcd) -> None:
    etcd.put(f"{PREFIX}a", "10.0.0.1:80")
    numbers = itertools.count(1)
    async with following(etcd, quiet_s=0.02) as registry:
        for tries in range(150):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(registry.next(), name="next")
                for _ in range(tries % 15):
                    await asyncio.sleep(0)
                if tries % 10 == 0:
                    etcd.put(f"{PREFIX}a", f"10.0.0.{next(numbers)}:80")
                task.cancel()
        last = f"10.0.0.{next(numbers) - 1}"
        await until(registry, lambda answer: hosts(answer) == [last])
