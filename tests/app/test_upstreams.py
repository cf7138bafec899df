"""An upstream's sources: merged, replaced by reloads, and what becomes of endpoints that leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from lbproxy.app.following import Sources, complain
from lbproxy.app.upstreams import Upstream
from lbproxy.config.options import UpstreamOptions
from lbproxy.discovery.contract import Answer, Candidate, Registry
from lbproxy.discovery.options import DiscoveryOptions, GuardOptions, StaticEndpoint
from lbproxy.domain.address import Address, HostName, ip_address
from lbproxy.domain.effects import CloseSessions, Effect
from lbproxy.domain.errors import ConnectFailure, RegistryError, ResolveError
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Lease
from lbproxy.pool.options import PoolOptions
from lbproxy.pool.pool import DOWN_STREAK
from lbproxy.proxy.complaints import Complaints
from lbproxy.wire.resolver import Resolution
from tests.discovery.members import ScriptedRegistry, answer


@dataclass(frozen=True)
class Scripted:
    """The options of a registry that a test tells what to say."""

    registry: ScriptedRegistry


class Rig:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.effects: list[Effect] = []
        self.own: set[Address] = set()
        self.now = 100.0
        self.sources = Sources(
            group,
            self.apply,
            self.resolve,
            self.own.__contains__,
            lambda: self.now,
            random.Random(1),
        )

    def apply(self, effects: Sequence[Effect]) -> None:
        self.effects += effects

    async def resolve(self, name: str) -> Resolution:
        raise AssertionError(name)

    def upstream(self, *discovery: DiscoveryOptions, deadline_s: float | None = None) -> Upstream:
        options = UpstreamOptions(PoolOptions("web", removal_deadline_s=deadline_s), discovery=discovery)
        made = Upstream(options, self.sources)
        made.configure(options)
        return made


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    def make(options: object, _: object) -> Registry:
        assert isinstance(options, Scripted)
        return options.registry

    monkeypatch.setattr("lbproxy.app.following.make_registry", make)
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            rig = Rig(group)
            yield rig
            for task in group._tasks:
                task.cancel()


def source(registry: ScriptedRegistry, name: str = "consul", limit: int = 100) -> DiscoveryOptions:
    return DiscoveryOptions(name, Scripted(registry), limit=limit)


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def in_force(upstream: Upstream) -> dict[str, int]:
    return {e.label: e.weight for e in upstream.pool.endpoints() if not e.ineligible}


async def test_the_first_source_that_names_an_address_says_what_holds(rig: Rig) -> None:
    first, second = ScriptedRegistry(), ScriptedRegistry()
    upstream = rig.upstream(source(first), source(second, "dns"))
    second.tell(Answer((Candidate("10.0.0.1", 80, 2), Candidate("10.0.0.2", 80, 2))))
    await settle()
    assert in_force(upstream) == {"10.0.0.1:80": 2, "10.0.0.2:80": 2}
    first.tell(Answer((Candidate("10.0.0.1", 80, 9), Candidate("10.0.0.3", 80, 9))))
    await settle()
    assert in_force(upstream) == {"10.0.0.1:80": 9, "10.0.0.2:80": 2, "10.0.0.3:80": 9}
    assert [each.name for each in upstream.sources] == ["consul", "dns"]
    upstream.stop_following()


async def test_a_source_without_an_answer_takes_nothing_away(rig: Rig) -> None:
    first = ScriptedRegistry(answer(1, 2))
    upstream = rig.upstream(source(first), source(ScriptedRegistry(), "dns"))
    await settle()
    assert len(in_force(upstream)) == 2
    upstream.stop_following()


async def test_a_reload_keeps_a_source_that_stays_and_what_a_changed_one_had(rig: Rig) -> None:
    stays, changes, after = ScriptedRegistry(answer(1)), ScriptedRegistry(answer(2)), ScriptedRegistry()
    kept = source(stays)
    upstream = rig.upstream(kept, source(changes, "dns"))
    await settle()
    options = UpstreamOptions(PoolOptions("web"), discovery=(kept, source(after, "dns", limit=7)))
    upstream.configure(options)
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.2:80", "10.0.0.3:80"}
    assert (stays.closed, changes.closed) == (0, 1)
    changes.tell(answer())  # nobody hears it any more
    after.tell(answer(2, 5))
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.2:80", "10.0.0.3:80", "10.0.0.6:80"}
    upstream.configure(UpstreamOptions(PoolOptions("web"), discovery=(kept,)))
    assert in_force(upstream).keys() == {"10.0.0.2:80"}
    upstream.stop_following()


async def test_from_configured_endpoints_to_discovery_and_back(rig: Rig) -> None:
    configured = (StaticEndpoint(ip_address("10.9.9.9", 80)),)
    upstream = rig.upstream(source(ScriptedRegistry(answer(1))))
    await settle()
    upstream.configure(UpstreamOptions(PoolOptions("web"), endpoints=configured))
    await settle()
    assert in_force(upstream).keys() == {"10.9.9.9:80"}
    upstream.stop_following()


async def test_one_of_our_own_listeners_is_refused_also_when_it_comes_later(rig: Rig) -> None:
    """D11, of discovered endpoints; those of the configuration are in the table of mistakes."""
    registry = ScriptedRegistry(answer(1, 2, 3))
    upstream = rig.upstream(source(registry))
    await settle()
    rig.own.add(ip_address("10.0.0.2", 80))
    upstream.judge_again()
    assert in_force(upstream).keys() == {"10.0.0.3:80", "10.0.0.4:80"}
    registry.tell(answer(1, 2, 3, 4))
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"}
    upstream.stop_following()


async def test_what_sessions_find_dead_is_let_go_after_trouble(rig: Rig) -> None:
    upstream = rig.upstream(source(ScriptedRegistry(answer(1))))
    await settle()
    (endpoint,) = upstream.pool.endpoints()
    for _ in range(DOWN_STREAK - 1):
        upstream.pool.dial_failed(endpoint, ConnectFailure.REFUSED, rig.now)
    assert not upstream.pool.is_down(endpoint.address)
    upstream.pool.dial_failed(endpoint, ConnectFailure.LOCAL, rig.now)
    assert not upstream.pool.is_down(endpoint.address)
    upstream.pool.dial_failed(endpoint, ConnectFailure.REFUSED, rig.now)
    assert upstream.pool.is_down(endpoint.address)
    upstream.pool.connected(endpoint, 0.1, rig.now)
    assert not upstream.pool.is_down(endpoint.address)
    assert not upstream.pool.is_down(ip_address("10.1.1.1", 1))
    upstream.stop_following()


@pytest.mark.parametrize("deadline_s", [None, 30.0])
async def test_sessions_of_a_removed_endpoint_stay_until_the_deadline(
    rig: Rig, deadline_s: float | None
) -> None:
    registry = ScriptedRegistry(answer(1, 2, 3))
    upstream = rig.upstream(source(registry), deadline_s=deadline_s)
    await settle()
    lease = upstream.pool.acquire(Context(rig.now, random.Random(1), "192.0.2.1"))
    assert isinstance(lease, Lease)
    left = [number for number in (1, 2, 3) if f"10.0.0.{number + 1}:80" != lease.endpoint.label]
    registry.tell(answer(*left))
    await settle()
    assert len(in_force(upstream)) == 2
    due = upstream.pool.advance(rig.now)[1]
    closed = [each for each in upstream.pool.advance(rig.now + 30.0)[0] if isinstance(each, CloseSessions)]
    again = [each for each in upstream.pool.advance(rig.now + 31.0)[0] if isinstance(each, CloseSessions)]
    if deadline_s is None:
        assert closed == []
    else:
        assert due == rig.now + deadline_s
        assert [each.endpoint for each in closed] == [lease.endpoint]
    assert again == []
    upstream.stop_following()


async def test_a_source_that_is_replaced_by_another_kind_stands_until_that_has_spoken(rig: Rig) -> None:
    stays = source(ScriptedRegistry(answer(1)), "file")
    upstream = rig.upstream(source(ScriptedRegistry(answer(2, 3))), stays)
    await settle()
    comes = ScriptedRegistry()
    upstream.configure(UpstreamOptions(PoolOptions("web"), discovery=(source(comes, "etcd"), stays)))
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"}
    rig.own.add(ip_address("10.9.9.9", 80))
    upstream.judge_again()
    assert len(in_force(upstream)) == 3
    comes.tell(answer(5))
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.2:80", "10.0.0.6:80"}
    upstream.stop_following()


async def test_a_source_that_is_taken_away_and_brought_back_is_still_guarded(rig: Rig) -> None:
    upstream = rig.upstream(source(ScriptedRegistry(answer(1, 2, 3))))
    await settle()
    upstream.configure(UpstreamOptions(PoolOptions("web"), discovery=(source(ScriptedRegistry(), "etcd"),)))
    await settle()
    back = ScriptedRegistry(answer())
    upstream.configure(UpstreamOptions(PoolOptions("web"), discovery=(source(back),)))
    await settle()
    assert len(in_force(upstream)) == 3
    upstream.stop_following()


async def test_configured_names_that_are_not_resolved_yet_empty_nothing(rig: Rig) -> None:
    upstream = rig.upstream(source(ScriptedRegistry(answer(1, 2))))
    await settle()
    answered = asyncio.get_running_loop().create_future()

    async def resolve(name: str) -> Resolution:
        assert name == "db.test"
        return await answered  # type: ignore[no-any-return]

    upstream._sources = replace(upstream._sources, resolve=resolve)
    named = (StaticEndpoint(HostName("db.test", 80)),)
    upstream.configure(UpstreamOptions(PoolOptions("web"), endpoints=named))
    await settle()
    assert len(in_force(upstream)) == 2
    answered.set_result(Resolution(("10.9.9.9",), 60.0))
    await settle()
    assert in_force(upstream).keys() == {"10.9.9.9:80"}
    upstream.stop_following()


async def test_a_registry_may_not_lead_to_the_admin_interface_and_a_configuration_may(rig: Rig) -> None:
    admin = ip_address("10.0.0.2", 80)
    rig.sources = replace(rig.sources, is_admin=lambda address: address == admin)
    upstream = rig.upstream(source(ScriptedRegistry(answer(1, 2))))
    await settle()
    assert in_force(upstream).keys() == {"10.0.0.3:80"}
    assert upstream.is_own(admin)
    upstream.configure(UpstreamOptions(PoolOptions("web"), endpoints=(StaticEndpoint(admin),)))
    assert in_force(upstream).keys() == {"10.0.0.2:80"}
    upstream.stop_following()


def test_a_registry_that_finds_new_words_each_time_is_told_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints(logging.getLogger("lbproxy.discovery"))
    for number in range(100):
        complain(complaints, "web", RegistryError(f"consul: 500 request {number}"), 1, 100.0)
    complain(complaints, "web", ResolveError("db.test", "no answer", retryable=True), 1, 100.0)
    assert len(complaints._said) == len(caplog.records) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_differences_of_several_sources_come_to_the_same_as_a_merge(rig: Rig, seed: int) -> None:
    rng = random.Random(seed)
    registries = [ScriptedRegistry(answer()) for _ in range(3)]
    bold = GuardOptions(share=1.0, minimum=0)
    upstream = rig.upstream(
        *(replace(source(each, f"s{number}"), guard=bold) for number, each in enumerate(registries))
    )
    await settle()
    said: list[dict[str, int]] = [{}, {}, {}]
    for _ in range(60):
        turn = rng.randrange(3)
        numbers = rng.sample(range(1, 9), rng.randrange(9))
        said[turn] = {f"10.0.0.{number}:80": rng.randint(1, 3) for number in numbers}
        registries[turn].tell(
            Answer(
                tuple(Candidate(label.partition(":")[0], 80, weight) for label, weight in said[turn].items())
            )
        )
        await settle()
        rig.now += 10.0
        assert in_force(upstream) == said[2] | said[1] | said[0]
    upstream.stop_following()


async def test_a_change_beside_another_source_costs_what_differs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ScriptedRegistry(answer(*range(1, 50))), ScriptedRegistry(answer(60))
    upstream = rig.upstream(source(first), source(second, "push"))
    await settle()
    monkeypatch.setattr(upstream.pool, "apply_membership", None)
    first.tell(answer(*range(2, 51)))
    await settle()
    assert len(in_force(upstream)) == 50
    upstream.stop_following()
