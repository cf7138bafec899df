"""A registry followed: the rules that hold for all of them, on virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lbproxy.discovery.contract import Answer, Candidate, Source
from lbproxy.discovery.follow import LOOK_S
from lbproxy.discovery.guard import CONFIRM_AFTER_S
from lbproxy.discovery.intake import SLICE
from lbproxy.discovery.options import GuardOptions
from lbproxy.discovery.pace import ASKED_SPREAD, BURST, REFILL_A_S, RETRY, STEADY_S
from lbproxy.domain.address import ip_address
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import Difference, Membership
from tests.discovery.followed import ERROR, Followed
from tests.discovery.members import ScriptedRegistry, address, answer, hosts, members, numbers


async def test_answers_are_reported_when_they_differ() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2), answer(1, 2), answer(1, 2, 3)))
    source: Source = of.source
    assert (source.name, source.initial(), source.refreshed_at) == ("consul", None, None)
    of.time.now += 70
    assert source.status.age_s == 70, "a registry that never answers is seen to be silent"
    async with of.running():
        assert [numbers(each) for each in of.reports] == [[1, 2], [1, 2, 3]]
        assert source.status.results == {
            "applied": 2, "unchanged": 1, "held": 0, "confirmed": 0, "expired": 0, "error": 0,
        }  # fmt: skip
        assert source.refreshed_at == of.time.now


async def test_an_error_changes_nothing_and_is_tried_again_with_jitter() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2), *[ERROR] * 50))
    async with of.running():
        waits = []
        for _ in range(40):
            waits.append(of.time.waits[-1])
            await of.time.advance(waits[-1])
        assert of.last == [1, 2]
        assert len(of.reports) == 1
        assert of.errors[0] == "consul: connection refused"
        assert all(RETRY.floor_s - 1e-6 <= wait <= RETRY.cap_s + 1e-6 for wait in waits)
        assert len(set(waits)) > 20
        assert of.source.status.error == "connection refused"
        refreshed_at = of.source.refreshed_at
        assert refreshed_at is not None
        assert refreshed_at < of.time.now


async def test_a_defect_is_trouble_like_any_other_and_the_source_can_run_again() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2)))
    of.registry.second_opinion = answer(1, 2)
    async with of.running():
        pass
    of.registry.told.append(None)  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup):
        await of.source.run()
    assert (of.source.status.results["error"], of.registry.closed) == (1, 2)
    of.registry.closed = 0
    of.registry.tell(answer())
    async with of.running():
        assert of.source.status.held == 2
        assert "after trouble" in of.source.status.held_why


async def test_what_a_defect_kept_from_being_reported_is_reported_when_it_runs_again() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2)))
    whole: list[bool] = []
    take = of.source._report

    def fails(_: Membership, __: Difference | None) -> None:
        raise ZeroDivisionError

    def takes(membership: Membership, difference: Difference | None) -> None:
        whole.append(difference is None)
        take(membership, difference)

    async with of.running():
        assert of.last == [1, 2]
    of.source._report = fails
    of.registry.tell(answer(1, 2, 3))
    with pytest.raises(ExceptionGroup):
        await of.source.run()
    of.source._report = takes
    of.registry.closed = 0
    of.registry.tell(answer(1, 2, 3), answer(1, 2, 3, 4))
    async with of.running():
        assert [numbers(each) for each in of.reports] == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]
        assert whole == [True, False]


async def test_a_registry_that_asks_to_be_left_alone_is() -> None:
    of = Followed(ScriptedRegistry(RegistryError("429", retry_after_s=77.0), answer(1)))
    async with of.running():
        await of.time.advance(76.9)
        assert of.registry.asked == 1
        wait_s = of.time.waits[-1]
        assert 0.1 < wait_s <= 0.1 + ASKED_SPREAD * 77.0, "not at the same moment as everybody else"
        await of.time.advance(wait_s)
        assert of.last == [1]
        assert of.source.status.error == ""


async def test_a_registry_that_may_be_listed_and_not_watched_is_asked_less_and_less_often() -> None:
    error = RegistryError("403 Forbidden", listed=True)
    of = Followed(ScriptedRegistry(*[each for _ in range(100) for each in (answer(1), error)]))
    async with of.running():
        await of.time.advance(600)
        assert 20 < of.registry.asked < 150
        of.registry.told.clear()
        of.registry.tell(answer(1))
        await of.time.advance(RETRY.cap_s + STEADY_S)
        of.registry.tell(error)
        await of.time.settle()
        assert of.time.waits[-1] <= RETRY.base_s, "well for some time, it begins anew"


async def test_one_that_fails_to_be_asked_in_turn_is_asked_again_soon() -> None:
    of = Followed(ScriptedRegistry(*[each for _ in range(20) for each in (answer(1), ERROR)]))
    async with of.running():
        await of.time.advance(20)
        assert not of.registry.told


async def test_a_mass_removal_is_confirmed_by_a_second_opinion() -> None:
    of = Followed(ScriptedRegistry(answer(*range(10)), answer(1)))
    async with of.running():
        assert sorted(numbers(of.source.initial())) == list(range(10))
        assert (of.source.status.held, of.registry.confirmed) == (9, 0)
        assert "second answer" in of.source.status.held_why
        await of.time.advance(CONFIRM_AFTER_S - LOOK_S)
        assert of.registry.confirmed == 0
        await of.time.advance(3 * LOOK_S)
        assert of.registry.confirmed == 1
        assert of.last == [1]
        assert of.source.status.results["confirmed"] == 1


async def test_a_second_opinion_that_differs_or_fails_removes_nobody() -> None:
    of = Followed(ScriptedRegistry(answer(*range(10)), answer()))
    of.registry.second_opinion = answer(*range(10))
    async with of.running():
        await of.time.advance(CONFIRM_AFTER_S + 2 * LOOK_S)
        assert (of.registry.confirmed, of.source.status.held) == (1, 0)
        of.registry.second_opinion = ERROR
        of.registry.tell(answer())
        await of.time.advance(CONFIRM_AFTER_S + 2 * LOOK_S)
        assert of.registry.confirmed == 2
        assert "after trouble" in of.source.status.held_why
        await of.time.advance(GuardOptions().hold_s - CONFIRM_AFTER_S - 3 * LOOK_S)
        assert sorted(of.last) == list(range(10))
        await of.time.advance(4 * LOOK_S)
        assert of.last == []
        assert of.source.status.results["expired"] == 1


async def test_held_ones_are_let_go_as_soon_as_they_are_known_to_be_down() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2), ERROR, answer()))
    async with of.running():
        await of.time.advance(RETRY.cap_s)
        assert of.source.status.held == 2
        of.down |= {address(1), address(2)}
        await of.time.advance(2 * LOOK_S)
        assert of.last == []


async def test_answers_without_a_change_are_paced_and_changes_are_not() -> None:
    of = Followed(ScriptedRegistry(answer(1), *[answer(1)] * 1000))
    async with of.running():
        for _ in range(10):
            await of.time.settle()
        burst = of.registry.asked
        assert BURST <= burst <= BURST + 3
        await of.time.advance(10)
        assert of.registry.asked - burst <= 10 * REFILL_A_S + 2
    of = Followed(ScriptedRegistry(*[answer(number) for number in range(50)]))
    async with of.running():
        for _ in range(30):
            await of.time.settle()
        assert of.source.status.results["held"] + of.source.status.results["applied"] == 50


async def test_an_echo_of_each_change_keeps_no_later_change_waiting() -> None:
    of = Followed(ScriptedRegistry(answer(0)))
    async with of.running():
        for number in range(1, 5 * BURST):
            of.registry.tell(answer(number - 1, number), answer(number - 1, number))
            await of.time.settle()
            assert of.last == [number - 1, number]


async def test_refused_entries_are_counted_once_an_answer_that_differs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = Answer(
        (
            Candidate("10.0.0.1", 80),
            Candidate("10.0.0.2", 0),
            Candidate("169.254.169.254", 80),
            Candidate("10.0.0.9", 80),
        )
    )
    of = Followed(ScriptedRegistry(bad, bad))
    of.own.add(ip_address("10.0.0.9", 80))
    with caplog.at_level(logging.WARNING):
        async with of.running():
            assert hosts(of.reports[-1]) == ["10.0.0.1:80"]
            refused = {reason: count for reason, count in of.source.status.refused.items() if count}
            assert refused == {"port": 1, "link_local": 1, "own_listener": 1}
    (said,) = [record.message for record in caplog.records if "refused" in record.message]
    assert (
        said == "upstream web: consul: entries refused: "
        "1 link_local (169.254.169.254 port 80), 1 own_listener (10.0.0.9 port 80), 1 port (entry 2: 10.0.0.2 port 0)"
    )


@pytest.mark.parametrize(
    ("metadata", "named"),
    [({}, "entry 1"), ({"etcd-key": "/a/\n" + "x" * 500}, f"'/a/\\n{'x' * 76}'")],
)
async def test_what_is_no_endpoint_is_named_and_not_repeated(
    metadata: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Answer((Candidate("a secret", 80, metadata=metadata), Candidate("another", 0)))
    of = Followed(ScriptedRegistry(bad))
    with caplog.at_level(logging.WARNING):
        async with of.running():
            (said,) = [record.message for record in caplog.records if "refused" in record.message]
    assert said == f"upstream web: consul: entries refused: 1 address ({named}), 1 port (entry 2)"


async def test_more_entries_than_the_limit_are_refused() -> None:
    of = Followed(ScriptedRegistry(answer(*range(600))), limit=500)
    async with of.running():
        await of.time.settle()
        assert of.last == list(range(500))
        assert of.source.status.refused["limit"] == 100


async def test_a_large_answer_is_taken_in_slices_and_what_differs_is_told() -> None:
    many = range(5000)
    of = Followed(ScriptedRegistry())
    told: asyncio.Queue[Difference | None] = asyncio.Queue()
    of.source._report = lambda _, difference: told.put_nowait(difference)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with of.running(), asyncio.TaskGroup() as group:
        counting = group.create_task(count(), name="count")
        of.registry.tell(answer(*many))
        assert await told.get() is None
        assert turns >= 2 * len(many) // SLICE
        turns = 0
        of.registry.tell(answer(*many[1:], 5000))
        difference = await told.get()
        assert turns >= 4 * len(many) // SLICE
        counting.cancel()
    assert difference is not None
    assert (hosts(Membership(difference.told)), difference.gone) == (hosts(members(5000)), (address(0),))


async def test_two_ids_on_one_address_are_one_endpoint() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2, 1)))
    async with of.running():
        assert of.last == [1, 2]


class SlowSecondOpinion(ScriptedRegistry):
    """Its second opinion was formed before, and comes after, the next answer."""

    def __init__(self, *told: Answer | RegistryError) -> None:
        super().__init__(*told)
        self.release = asyncio.Event()

    async def confirm(self) -> Answer:
        said = await super().confirm()
        await self.release.wait()
        return said


async def test_a_second_opinion_that_was_overtaken_by_an_answer_takes_nothing_away() -> None:
    registry = SlowSecondOpinion(answer(1, 2, 3), answer(1))
    registry.second_opinion = answer(1, 2)
    of = Followed(registry)
    async with of.running():
        await of.time.advance(CONFIRM_AFTER_S + 2 * LOOK_S)
        assert registry.confirmed == 1
        registry.tell(answer(1, 2, 3))
        await of.time.settle()
        registry.release.set()
        await of.time.advance(5)
        assert of.source.in_force is not None
        assert sorted(numbers(of.source.in_force)) == [1, 2, 3]
