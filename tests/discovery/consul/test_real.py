"""The registry against real Consul agents: everything Consul 1.8 can show."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from lbproxy.discovery.consul.registry import ConsulRegistry
from lbproxy.discovery.contract import Answer
from lbproxy.domain.errors import RegistryError
from lbproxy.wire import consul as wire_consul
from lbproxy.wire.consul import ConsulRefused
from lbproxy.wire.secrets import Secret
from tests.discovery.consul.made import Make
from tests.patience import WITHIN_S
from tests.servers.consul import Consul, ttl

T = TypeVar("T")


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(WITHIN_S):
        return await what


Shown = list[tuple[int, int]]


def shown(answer: Answer) -> Shown:
    """Port and weight of each candidate."""
    return [(each.port, each.weight) for each in answer.candidates]


def statuses(answer: Answer) -> dict[int, str]:
    return {each.port: each.metadata.get("consul-status", "") for each in answer.candidates}


async def after(registry: ConsulRegistry, act: Callable[[], object]) -> Answer:
    """The answer of a question that waited while something happened."""
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(registry.next(), name="waits")
        await asyncio.sleep(0)
        act()
        return await soon(waiting)


async def sees(registry: ConsulRegistry, act: Callable[[], object], what: Shown) -> Answer:
    """As `after`, of the first answer that shows this. Consul also wakes a watch for nothing: a second time for the change before, or
    when the node's own check comes, a moment after a start."""
    answer = await after(registry, act)
    return answer if shown(answer) == what else await until(registry, lambda another: shown(another) == what)


async def until(registry: ConsulRegistry, holds: Callable[[Answer], bool]) -> Answer:
    """The first answer of which something is true; errors on the way are followed by another question, as the follower does."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                answer = await registry.next()
            except RegistryError:
                continue
            if holds(answer):
                return answer


async def test_what_happens_to_instances_is_seen(consul: Consul, make: Make) -> None:
    consul.register(1)
    registry = make(consul)
    assert shown(await registry.next()) == [(1, 1)]
    await sees(registry, lambda: consul.register(2, Weights={"Passing": 5}), [(1, 1), (2, 5)])
    weights = {"Passing": 9, "Warning": 3}
    await sees(registry, lambda: consul.register(2, Weights=weights), [(1, 1), (2, 9)])
    found = await sees(
        registry, lambda: consul.maintenance("web-2", on=True, reason="new disk"), [(1, 1), (2, 0)]
    )
    assert statuses(found) == {1: "", 2: "maintenance: new disk"}
    await sees(registry, lambda: consul.maintenance("web-2", on=False), [(1, 1), (2, 9)])
    found = await sees(registry, lambda: consul.node_maintenance(on=True, reason="reboot"), [(1, 0), (2, 0)])
    assert statuses(found) == {1: "maintenance: reboot", 2: "maintenance: reboot"}
    await sees(registry, lambda: consul.node_maintenance(on=False), [(1, 1), (2, 9)])
    await sees(registry, lambda: consul.deregister("web-2"), [(1, 1)])
    found = await sees(registry, lambda: consul.deregister("web-1"), [])
    assert (shown(found), found.consistent, found.regressed) == ([], False, False)
    found = await registry.confirm()
    assert (shown(found), found.consistent) == ([], True)


async def test_checks_are_seen(consul: Consul, make: Make) -> None:
    consul.register(1, checks=[ttl("c1")], Weights={"Passing": 10, "Warning": 4})
    registry = make(consul)
    assert shown(await registry.next()) == [(1, 10)]
    await sees(registry, lambda: consul.set_check("c1", "warning"), [(1, 4)])
    found = await sees(registry, lambda: consul.set_check("c1", "critical"), [(1, 0)])
    assert statuses(found) == {1: "critical: check c1 is critical"}
    await sees(registry, lambda: consul.set_check("c1", "passing"), [(1, 10)])


async def test_tags_and_a_filter_choose(consul: Consul, make: Make) -> None:
    consul.register(1, Tags=["blue", 'say "hi\\n"', "a`\\`"], Meta={"version": "1"})
    consul.register(2, Tags=["blue"], Meta={"version": "2"})
    consul.register(3, Tags=["green"], Meta={"version": "2"})
    choices: list[tuple[dict[str, Any], list[int]]] = [
        ({"tags": ("blue",)}, [1, 2]),
        ({"tags": ("blue", 'say "hi\\n"', "a`\\`")}, [1]),
        ({"filter": 'Service.Meta.version == "2"'}, [2, 3]),
        ({"tags": ("blue",), "filter": 'Service.Meta.version == "2" or Service.Port == 1'}, [1, 2]),
        ({"near": "_agent"}, [1, 2, 3]),
        ({"consistency": "stale"}, [1, 2, 3]),
        ({"consistency": "consistent"}, [1, 2, 3]),
    ]
    for options, ports in choices:
        found = await make(consul, **options).next()
        assert sorted(port for port, _ in shown(found)) == ports, options
        assert found.consistent == (options.get("consistency") == "consistent")


async def test_a_choice_by_tag_is_followed(consul: Consul, make: Make) -> None:
    consul.register(1, Tags=["blue"])
    registry = make(consul, tags=("blue",))
    assert shown(await registry.next()) == [(1, 1)]
    await sees(registry, lambda: consul.register(1, Tags=["green"]), [])
    consul.register(2, Tags=["green"])
    found = await until(registry, lambda answer: len(answer.candidates) == 0)
    assert shown(found) == []
    consul.register(2, Tags=["green", "blue"])
    assert shown(await until(registry, lambda answer: answer.candidates != ())) == [(2, 1)]


async def test_what_consul_refuses_is_an_error(consul: Consul, make: Make) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"filter": "not an expression"}, "500 .*expression"),
        ({"access": {"namespace": "team"}}, "400 .*Enterprise"),
        ({"access": {"datacenter": "nowhere"}}, "500 No path to datacenter"),
        ({"query": "none"}, "404 Query not found"),
    ]
    for options, words in refused:
        with pytest.raises(ConsulRefused, match=words):
            await make(consul, **options).next()


async def test_an_unchanged_answer_costs_no_second_look(
    consul: Consul, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul.register(1)
    registry = make(consul, wait_s=0.05)
    first = await registry.next()
    while (again := await registry.next()).candidates is not first.candidates:
        first = again  # the node's own check comes a moment after a start
    monkeypatch.setattr("lbproxy.discovery.consul.registry.json_items", None)
    again = await registry.next()
    assert again.candidates is first.candidates


async def test_a_watch_of_an_unknown_service_wakes_and_says_nothing_new(consul: Consul, make: Make) -> None:
    registry = make(consul)
    first = await registry.next()
    assert shown(first) == []
    again = await after(registry, lambda: consul.register(1, service="other"))
    assert again.candidates is first.candidates
    await sees(registry, lambda: consul.register(2), [(2, 1)])


async def test_a_prepared_query_is_asked_again_and_again(consul: Consul, make: Make) -> None:
    consul.register(1, checks=[ttl("c1")])
    consul.register(2)
    made = consul.ask("POST", "/v1/query", {"Name": "our web", "Service": {"Service": "web"}})
    for query in ("our web", made["ID"]):
        registry = make(consul, query=query, interval_s=0.02)
        for _ in range(5):  # Consul shuffles what it answers
            assert shown(await soon(registry.next())) == [(1, 1), (2, 1)]
        consul.set_check("c1", "critical")
        assert shown(await until(registry, lambda answer: len(answer.candidates) == 1)) == [(2, 1)]
        consul.set_check("c1", "passing")
        assert shown(await until(registry, lambda answer: len(answer.candidates) == 2)) == [(1, 1), (2, 1)]
    assert shown(await registry.confirm()) == [(1, 1), (2, 1)]


async def test_an_agent_that_is_killed_and_started_again_has_regressed(consul: Consul, make: Make) -> None:
    for port in range(1, 6):
        consul.register(port)
    for _ in range(20):
        consul.register(1, Meta={"n": str(_)})
    registry = make(consul)
    assert len((await registry.next()).candidates) == 5

    def killed() -> None:
        consul.kill()

    with pytest.raises(ExceptionGroup) as told:
        await after(registry, killed)
    assert told.group_contains(RegistryError)
    with pytest.raises(RegistryError, match="consul http"):
        await soon(registry.next())
    consul.start()
    consul.wait_for_leader()
    found = await until(registry, lambda answer: True)
    assert (shown(found), found.regressed) == ([], True)
    found = await sees(registry, lambda: consul.register(3), [(3, 1)])
    assert not found.regressed


async def test_an_agent_that_is_stopped_is_given_up_after_the_wait_and_followed_again(
    consul: Consul, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul.register(1)
    registry = make(consul, wait_s=0.1)
    await registry.next()
    consul.signal(signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(wire_consul, "ANSWER_WITHIN_S", 0.3)
        for _ in range(2):
            with pytest.raises(RegistryError, match="no answer in time"):
                await soon(registry.next())
    consul.signal(signal.SIGCONT)
    consul.register(2)
    assert shown(await until(registry, lambda answer: len(answer.candidates) == 2)) == [(1, 1), (2, 1)]


async def test_a_lost_leader_is_an_error_and_the_next_one_is_followed(
    consul_servers: list[Consul], make: Make
) -> None:
    leader = next(
        each
        for each in consul_servers
        if each.ask("GET", "/v1/status/leader") == f"127.0.0.1:{each.ports['server']}"
    )
    others = [each for each in consul_servers if each is not leader]
    watched = others[0]
    for agent in others:
        for port in (1, 2):
            agent.register(port + 10 * others.index(agent))
    registry, stale = make(watched), make(watched, consistency="stale", max_stale_s=2.0)
    everything = [1, 2, 11, 12]
    for each in (registry, stale):
        await until(each, lambda answer: [port for port, _ in shown(answer)] == everything)
    leader.kill()
    watched.wait_for_leader()
    seen: list[int] = []

    def changed(answer: Answer) -> bool:
        seen.append(len(answer.candidates))
        return (13, 1) in shown(answer)

    others[1].register(13)
    await until(registry, changed)
    await until(stale, changed)
    assert min(seen) >= 4


async def test_without_a_quorum_nothing_is_an_answer(consul_servers: list[Consul], make: Make) -> None:
    watched, *others = consul_servers
    watched.register(1)
    await until(make(watched), lambda answer: len(answer.candidates) == 1)
    for each in others:
        each.kill()
    registry = make(watched, consistency="stale", wait_s=0.1)
    said = ""
    async with asyncio.timeout(WITHIN_S):
        while "No cluster leader" not in said:
            try:
                assert len((await registry.next()).candidates) == 1, "what it answers until then is whole"
            except RegistryError as error:
                said = str(error)


LEAST: Final = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (LEAST, ""),
        ('service "web" { policy = "read" } node_prefix "" { policy = "read" }', ""),
        ('service_prefix "" { policy = "read" }', "may not read"),
        ('node_prefix "" { policy = "read" }', "may not read"),
        ('service "other" { policy = "read" } node_prefix "" { policy = "read" }', "may not read"),
        ('key_prefix "" { policy = "read" }', "may not read"),
    ],
)
async def test_a_token_that_may_not_see_is_told_from_an_empty_service(
    consul_with_acls: Consul, make: Make, tmp_path: Path, rules: str, words: str
) -> None:
    """Consul 1.8 answers 200 and an empty list to both."""
    agent = consul_with_acls
    (tmp_path / "token").write_text(agent.token(rules))
    registry = make(agent, access={"token": Secret(path=tmp_path / "token")})
    for act in (lambda: None, lambda: agent.register(1), lambda: agent.deregister("web-1")):
        act()
        for question in (registry.next, registry.confirm):
            if words:
                with pytest.raises(RegistryError, match=words):
                    await soon(question())
            else:
                await soon(question())


async def test_without_a_token_an_empty_answer_is_not_believed(consul_with_acls: Consul, make: Make) -> None:
    consul_with_acls.register(1)
    with pytest.raises(RegistryError, match="may not read"):
        await make(consul_with_acls).next()


async def test_a_wrong_token_is_an_error_until_its_file_is_corrected(
    consul_with_acls: Consul, make: Make, tmp_path: Path
) -> None:
    agent, file = consul_with_acls, tmp_path / "token"
    agent.register(1)
    registry = make(agent, access={"token": Secret(path=file)}, wait_s=0.1)
    with pytest.raises(RegistryError, match="No such file"):
        await registry.next()
    file.write_text("00000000-0000-0000-0000-000000000000")
    with pytest.raises(ConsulRefused, match="403 ACL not found"):
        await registry.next()
    good = agent.token(LEAST)
    file.write_text(good)
    assert shown(await registry.next()) == [(1, 1)]
    file.write_text("00000000-0000-0000-0000-000000000001")
    with pytest.raises(ConsulRefused, match="403 ACL not found"):
        await registry.next()
    file.write_text(good)
    assert shown(await registry.next()) == [(1, 1)]


async def test_a_watch_can_be_cancelled_at_any_point(consul: Consul, make: Make) -> None:
    consul.register(1)
    registry = make(consul)
    await registry.next()
    for turns in range(12):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(registry.next(), name="waits")
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
    consul.register(2)
    assert shown(await until(registry, lambda answer: len(answer.candidates) == 2)) == [(1, 1), (2, 1)]


async def test_both_questions_may_be_asked_at_once(consul: Consul, make: Make) -> None:
    consul.register(1)
    registry = make(consul)
    await registry.next()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(registry.next(), name="waits")
        assert shown(await soon(registry.confirm())) == [(1, 1)]
        assert not waiting.done()
        consul.register(2)
        assert shown(await soon(waiting)) == [(1, 1), (2, 1)]
