"""The registry against a loopback imitation: what a real agent cannot be made to do, and what newer ones and Enterprise do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lbproxy.domain.errors import RegistryError
from lbproxy.wire import consul as wire_consul
from lbproxy.wire import http as wire_http
from lbproxy.wire.secrets import Secret
from tests.discovery.consul.made import Make, ports
from tests.patience import WITHIN_S
from tests.servers.consul_imitation import (
    ConsulImitation,
    Fault,
    alternating,
    consul_imitation,
    cut_short,
    empty,
    hang_up,
    instance,
    keep_silent,
    refuse,
    say,
    trickle,
    with_headers,
)

FAULTS: list[tuple[Fault, str]] = [
    (refuse(500, "rpc error: No cluster leader"), "500 rpc error: No cluster leader"),
    (refuse(403, "Permission denied"), "403 Permission denied"),
    (refuse(429), "429"),
    (refuse(503), "503"),
    (refuse(301, Location="/v1/elsewhere"), "301"),
    (refuse(404), "404"),
    (say("{not json"), "no JSON list"),
    (say("<html>proxy</html>"), "no JSON list"),
    (say('[{"Node": 1},'), "no JSON"),
    (say('[{"Node": 1} {}]'), "no comma"),
    (say("[] trailing"), "more text"),
    (say("[" * 100_000), "no JSON"),
    (say(""), "no JSON list"),
    (say('{"Nodes": []}'), "no JSON list"),
    (with_headers(X_Consul_Index="many"), "X-Consul-Index is no number"),
    (with_headers(X_Consul_Index="--5"), "X-Consul-Index is no number"),
    (with_headers(X_Consul_Index="9" * 30), "X-Consul-Index is no number"),
    (with_headers(X_Consul_Results_Filtered_By_ACLs="true"), "may not see all"),
    (with_headers(X_Consul_KnownLeader="false"), "no leader"),
    (cut_short, "payload|Content|disconnected|reset|closed"),
    (hang_up, "disconnected|reset"),
    (keep_silent, "no answer in time"),
    (trickle, "no answer in time"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=lambda each: each if isinstance(each, str) else "")
async def test_trouble_is_an_error_and_the_next_question_starts_from_nothing(
    imitation: ConsulImitation, make: Make, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str
) -> None:
    imitation.change(instance(1), instance(2))
    registry = make(imitation, wait_s=0.1)
    assert ports(await registry.next()) == [1, 2]
    imitation.trouble(fault)
    with monkeypatch.context() as impatient:
        if words == "no answer in time":
            impatient.setattr(wire_consul, "ANSWER_WITHIN_S", 0.3)
            impatient.setattr(wire_consul, "BODY_WITHIN_S", 0.2)
        for turn in range(3):
            with pytest.raises(RegistryError, match=words) as told:
                await registry.next()
            assert told.value.listed is (turn == 0)
            with pytest.raises(RegistryError, match=words):
                await registry.confirm()
    imitation.trouble(None)
    found = await registry.next()
    assert (ports(found), found.regressed) == ([1, 2], False)
    indexes = [each.get("index", "0") for each in imitation.asked if "consistent" not in each]
    assert indexes[:2] == ["0", "11"]
    assert set(indexes[2:]) == {"0"}


async def test_how_long_to_stay_away_is_passed_on(imitation: ConsulImitation, make: Make) -> None:
    registry = make(imitation)
    for given, seconds in [
        ("7", 7.0),
        ("99999999", float(wire_http.RETRY_AFTER_MOST_S)),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0),
        ("-1", None),
        ("", None),
    ]:
        imitation.trouble(refuse(429, Retry_After=given))
        with pytest.raises(RegistryError) as told:
            await registry.next()
        assert told.value.retry_after_s == seconds


async def test_an_answer_without_an_index_is_none(imitation: ConsulImitation, make: Make) -> None:
    async def bare(of: ConsulImitation, _: object) -> Any:
        found = of.reply([])
        del found.headers["X-Consul-Index"]
        return found

    imitation.trouble(bare)
    with pytest.raises(RegistryError, match="without X-Consul-Index"):
        await make(imitation).next()


async def test_an_answer_that_is_too_long_is_given_up(
    imitation: ConsulImitation, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_consul, "MAX_BODY_BYTES", wire_http.MAX_BODY_BYTES >> 15)
    imitation.change(*(instance(port) for port in range(1, 20)))
    with pytest.raises(RegistryError, match="an answer of more than 1024 bytes"):
        await make(imitation).next()


async def test_an_index_that_goes_back_is_told_and_not_asked_with(
    imitation: ConsulImitation, make: Make
) -> None:
    imitation.change(instance(1))
    registry = make(imitation, wait_s=0.1)
    assert not (await registry.next()).regressed
    imitation.trouble(with_headers(X_Consul_Index="1"))
    assert (await registry.next()).regressed
    assert not (await registry.next()).regressed  # the same index again
    imitation.trouble(None)
    assert ports(await registry.next()) == [1]
    assert [each.get("index", "0") for each in imitation.asked] == ["0", "11", "0", "1"]


async def test_an_agent_that_forgot_has_regressed_even_after_an_error(
    imitation: ConsulImitation, make: Make
) -> None:
    imitation.change(instance(1))
    registry = make(imitation, wait_s=0.1)
    await registry.next()
    imitation.trouble(hang_up)
    with pytest.raises(RegistryError):
        await registry.next()
    imitation.forget()
    imitation.trouble(None)
    found = await registry.next()
    assert (ports(found), found.regressed) == ([], True)
    assert not (await registry.confirm()).regressed
    imitation.change(instance(1))
    found = await registry.next()
    assert (ports(found), found.regressed) == ([1], False)


async def test_a_second_opinion_of_an_agent_that_forgot_is_none(
    imitation: ConsulImitation, make: Make
) -> None:
    imitation.change(instance(1))
    registry = make(imitation, wait_s=0.1)
    await registry.next()
    imitation.forget()
    found = await registry.confirm()
    assert (ports(found), found.regressed) == ([], True)


@pytest.mark.parametrize("index", ["0", "-3", "00"])
async def test_an_index_below_one_counts_as_one(imitation: ConsulImitation, make: Make, index: str) -> None:
    imitation.trouble(with_headers(X_Consul_Index=index))
    registry = make(imitation, wait_s=0.1)
    for _ in range(3):
        assert not (await registry.next()).regressed
    assert [each.get("index", "0") for each in imitation.asked] == ["0", "1", "1"]


async def test_full_and_empty_in_turn_are_passed_on_as_they_are(
    imitation: ConsulImitation, make: Make
) -> None:
    """The guard judges; the registry tells the truth, and does not take one for the other by their index."""
    imitation.change(instance(1), instance(2))
    imitation.trouble(alternating())
    registry = make(imitation)
    assert [ports(await registry.next()) for _ in range(4)] == [[], [1, 2], [], [1, 2]]


async def test_a_question_waits_and_the_client_a_little_longer(
    imitation: ConsulImitation, make: Make
) -> None:
    imitation.change(instance(1))
    registry = make(imitation, wait_s=0.05)
    first = await registry.next()
    second = await registry.next()
    assert second.candidates is first.candidates
    assert [dict(each) for each in imitation.asked] == [{}, {"index": "11", "wait": "50ms"}]


async def test_everything_configured_is_asked_for(
    imitation: ConsulImitation, make: Make, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("one\n")
    access = {
        "datacenter": "dc2",
        "namespace": "team a",
        "partition": "p",
        "token": Secret(path=tmp_path / "token"),
    }
    registry = make(
        imitation,
        service="a/b c",
        access=access,
        near="_agent",
        tags=("t",),
        filter="F == 1",
        consistency="stale",
    )
    await registry.next()
    (tmp_path / "token").write_text("another\n")
    await registry.confirm()
    first, second = imitation.requests
    asked = {"dc": "dc2", "ns": "team a", "partition": "p", "near": "_agent"}
    chosen = "`t` in Service.Tags and (F == 1)"
    assert dict(first.query) == {**asked, "stale": "", "filter": chosen}
    assert dict(second.query) == {**asked, "consistent": "", "filter": chosen}
    assert first.raw_path.partition("?")[0] == "/v1/health/service/a%2Fb%20c"
    assert [each.headers["X-Consul-Token"] for each in (first, second)] == ["one", "another"]
    assert "one" not in first.raw_path


@pytest.mark.parametrize(
    "headers",
    [{"X-Consul-KnownLeader": "false"}, {"X-Consul-LastContact": "2001"}, {"X-Consul-LastContact": "?"}],
)
async def test_a_stale_answer_that_is_too_old_is_asked_for_again_of_the_leader(
    imitation: ConsulImitation, make: Make, headers: dict[str, str]
) -> None:
    async def behind(of: ConsulImitation, request: Any) -> Any:
        if "stale" in request.query:
            return of.reply(
                [instance(9)], **{name.replace("-", "_"): value for name, value in headers.items()}
            )
        return of.reply(of.instances)

    imitation.change(instance(1))
    registry = make(imitation, consistency="stale", max_stale_s=2.0)
    found = await registry.next()
    assert ports(found) == [1]
    imitation.trouble(behind)
    found = await registry.next()
    assert ports(found) == [1]
    imitation.trouble(None)
    imitation.headers = {"X-Consul-LastContact": "2000"}
    imitation.change(instance(2))
    found = await registry.next()
    assert ports(found) == [2]


@pytest.mark.parametrize(
    ("allowed", "nodes", "believed"),
    [
        (401, [], True),  # ACLs are off
        (True, [], True),
        (False, [{"Node": "one"}], False),
        (404, [{"Node": "one"}], True),
        (404, [], False),
        (405, [], False),
        (403, [{"Node": "one"}], False),
        (500, [{"Node": "one"}], False),
    ],
)
async def test_an_empty_answer_is_believed_when_the_token_may_see(
    imitation: ConsulImitation, make: Make, allowed: bool | int, nodes: list[Any], believed: bool
) -> None:
    imitation.change(instance(1))
    imitation.allowed, imitation.nodes = allowed, nodes
    registry = make(imitation, wait_s=0.05)
    await registry.next()
    assert len(imitation.requests) == 1  # what is there needs no second question
    imitation.change()
    for question in (registry.next, registry.confirm):
        if believed:
            assert ports(await question()) == []
        else:
            with pytest.raises(RegistryError):
                await question()
    if believed:
        before = len(imitation.requests)
        assert ports(await registry.next()) == []
        assert len(imitation.requests) == before + 1  # believed once, and nothing has changed


async def test_an_empty_answer_to_the_anonymous_token_is_not_believed(
    imitation: ConsulImitation, make: Make
) -> None:
    imitation.trouble(empty())
    imitation.allowed = False
    with pytest.raises(RegistryError, match="may not read"):
        await make(imitation).next()


async def test_enterprise_says_itself_what_was_filtered(imitation: ConsulImitation, make: Make) -> None:
    imitation.allowed, imitation.nodes = False, []
    registry = make(imitation, access={"namespace": "team"})
    assert ports(await registry.next()) == []
    assert len(imitation.requests) == 1


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"Service": "web", "Nodes": null}', []),
        ('{"Service": "web", "Nodes": []}', []),
        ("{}", None),
        ("[]", None),
        ('{"Nodes": {}}', None),
    ],
)
async def test_a_prepared_query_says_what_it_found(
    imitation: ConsulImitation, make: Make, said: str, found: list[int] | None
) -> None:
    imitation.trouble(say(said))
    registry = make(imitation, query="q/1", interval_s=0.01)
    for question in (registry.next, registry.next, registry.confirm):
        if found is None:
            with pytest.raises(RegistryError, match="no list of nodes"):
                await question()
        else:
            assert ports(await question()) == found
    assert imitation.requests[0].raw_path == "/v1/query/q%2F1/execute"


async def test_an_agent_behind_a_unix_socket(make: Make, tmp_path: Path) -> None:
    async with consul_imitation(str(tmp_path / "consul.sock")) as imitation:
        imitation.change(instance(1))
        registry = make(imitation)
        assert ports(await registry.next()) == [1]
        await registry.close()
        assert ports(await registry.confirm()) == [1]


async def test_many_watches_do_not_wait_for_each_other(imitation: ConsulImitation, make: Make) -> None:
    """One connection each: a session's usual limit of a hundred would let the next one wait for ever."""
    imitation.change(instance(1))
    registries = [make(imitation) for _ in range(130)]
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        for each in registries:
            await each.next()
        waiting = [group.create_task(each.next(), name="waits") for each in registries]
        while len(imitation.requests) < 260:
            await imitation.question.wait()
        imitation.change(instance(2))
    assert [ports(each.result()) for each in waiting] == [[2]] * 130
