"""A registry followed: every rule that holds for all of them, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lbproxy.discovery.contract import Answer, Candidate, Source
from lbproxy.discovery.follow import LOOK_S, RECOVERY_PAUSE_S, RETRY, FollowedSource
from lbproxy.discovery.guard import CONFIRM_AFTER_S
from lbproxy.discovery.intake import SLICE
from lbproxy.discovery.options import DiscoveryOptions, GuardOptions
from lbproxy.discovery.pace import BURST, REFILL_A_S
from lbproxy.discovery.snapshots import Saved, Snapshots
from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.errors import RegistryError, ResolveError
from lbproxy.domain.membership import Difference, Membership
from lbproxy.wire.resolver import Resolution
from tests.discovery.members import ScriptedRegistry, address, answer, hosts, members, numbers
from tests.discovery.virtual import ScriptedResolver, VirtualTime

ERROR = RegistryError("connection refused")


class Followed:
    """A source, what it reported, and the world around it."""

    def __init__(
        self, registry: ScriptedRegistry, snapshots: Snapshots | None = None, **options: Any
    ) -> None:
        self.time = VirtualTime()
        self.resolver = ScriptedResolver(self.time.clock)
        self.registry = registry
        self.reports: list[Membership] = []
        self.errors: list[str] = []
        self.own: set[Address] = set()
        self.down: set[Address] = set()
        predecessor = options.pop("predecessor", None)
        self.source = FollowedSource(
            "web",
            DiscoveryOptions("consul", None, **options),
            registry,
            lambda membership, _: self.reports.append(membership),
            lambda error: self.errors.append(str(error)),
            clock=self.time.clock,
            sleep=self.time.sleep,
            wall=lambda: 1_000_000.0 + self.time.now,
            rng=random.Random(1),
            resolve=self.resolver.resolve,
            is_own=self.own.__contains__,
            is_down=self.down.__contains__,
            snapshots=snapshots,
            predecessor=predecessor,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.source.run(), name="source")
            await self.time.settle()
            yield
            task.cancel()
        assert self.registry.closed == 1

    @property
    def last(self) -> list[int]:
        return numbers(self.reports[-1])


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


async def test_a_registry_that_asks_to_be_left_alone_is() -> None:
    of = Followed(ScriptedRegistry(RegistryError("429", retry_after_s=77.0), answer(1)))
    async with of.running():
        await of.time.advance(76.9)
        assert of.registry.asked == 1
        await of.time.advance(0.2)
        assert of.last == [1]
        assert of.source.status.error == ""


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


async def test_that_a_source_answers_again_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    flapping = [each for _ in range(20) for each in (answer(1, 2), ERROR)]
    of = Followed(ScriptedRegistry(answer(1), ERROR, ERROR, *flapping))
    with caplog.at_level(logging.INFO):
        async with of.running():
            assert not [record for record in caplog.records if "again" in record.message]
            before = of.time.now
            await of.time.advance(RECOVERY_PAUSE_S - 1.0)
            told = [record.message for record in caplog.records if "again" in record.message]
            assert len(told) == 1
            assert told[0].startswith("upstream web: consul: answers again, after ")
            assert 0.0 < float(told[0].split()[-4]) <= of.time.now - before


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


async def test_host_names_are_resolved_and_followed() -> None:
    named = Answer((Candidate("db.internal", 5432, 3), Candidate("lost.internal", 5432)))
    of = Followed(ScriptedRegistry(named))
    of.resolver.answers = {
        "db.internal": Resolution(("10.9.0.1", "10.9.0.2"), 20.0),
        "lost.internal": ResolveError("lost.internal", "no such name", retryable=False),
    }
    async with of.running():
        assert hosts(of.reports[-1]) == ["10.9.0.1:5432", "10.9.0.2:5432"]
        assert of.source.status.refused["unresolved"] == 1
        of.resolver.answers["db.internal"] = ResolveError("db.internal", "time-out", retryable=True)
        await of.time.advance(60)
        assert len(of.reports) == 1
        of.resolver.answers["db.internal"] = Resolution(("10.9.0.2", "10.9.0.3"), 20.0)
        of.resolver.answers["lost.internal"] = Resolution(("10.9.0.7",), 20.0)
        await of.time.advance(60)
        assert sorted(hosts(of.reports[-1])) == ["10.9.0.2:5432", "10.9.0.3:5432", "10.9.0.7:5432"]


class Told(Snapshots):
    """Files are written in a thread: `tried` is set after each try."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tried = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def save(self, upstream: str, source: str, saved: Saved) -> None:
        try:
            super().save(upstream, source, saved)
        finally:
            self._loop.call_soon_threadsafe(self.tried.set)

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            await self.tried.wait()


async def test_what_is_in_force_is_kept_on_disk_and_serves_a_start_without_the_registry(
    tmp_path: Path,
) -> None:
    snapshots = Told(tmp_path)
    of = Followed(ScriptedRegistry(answer(1, 2, 3)), snapshots)
    async with of.running():
        await snapshots.wait()
    again = Followed(ScriptedRegistry(*[ERROR] * 3), snapshots)
    again.time.now += 500
    assert numbers(again.source.initial()) == [1, 2, 3]
    status = again.source.status
    assert (status.unverified, status.snapshot_age_s, again.source.refreshed_at) == (True, 500.0, None)
    assert status.age_s == 500.0
    assert all(member.unverified for member in again.source.initial().members)  # type: ignore[union-attr]
    async with again.running():
        again.registry.tell(answer(1, 2, 4))
        await again.time.advance(120)
        assert again.last == [1, 2, 4]
        assert not again.source.status.unverified
        assert not any(member.unverified for member in again.reports[-1].members)


async def test_a_start_from_the_disk_with_an_emptied_registry_empties_nothing(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save("web", "consul", Saved(members(1, 2, 3), 5.0))
    of = Followed(ScriptedRegistry(answer()), snapshots)
    async with of.running():
        await of.time.advance(GuardOptions().hold_s - 5)
        assert of.source.status.held == 3
        assert not of.reports or sorted(of.last) == [1, 2, 3]


async def test_a_damaged_state_is_said_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "web.consul.json").write_text("{")
    of = Followed(ScriptedRegistry(answer(1)), Snapshots(tmp_path))
    assert of.source.initial() is None
    assert "web.consul.json" in caplog.text
    async with of.running():
        assert of.last == [1]


async def test_a_disk_that_fails_is_said_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    snapshots = Told(tmp_path / "file" / "below")
    of = Followed(ScriptedRegistry(answer(1)), snapshots)
    async with of.running():
        await snapshots.wait()
        async with asyncio.timeout(5):
            while "is not kept" not in caplog.text:  # said some turns of the loop after the try
                await of.time.settle()
        of.registry.tell(answer(1, 2))
        await of.time.settle()
        assert of.last == [1, 2]


async def test_a_successor_begins_with_what_was_in_force() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2, 3)))
    async with of.running():
        pass
    after = Followed(ScriptedRegistry(answer()), predecessor=of.source)
    assert numbers(after.source.initial()) == [1, 2, 3]
    async with after.running():
        assert after.source.status.held == 3
        assert "second answer" in after.source.status.held_why


async def test_a_successor_takes_over_the_trouble_too() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2, 3), ERROR))
    async with of.running():
        pass
    after = Followed(ScriptedRegistry(answer()), predecessor=of.source)
    async with after.running():
        assert "after trouble" in after.source.status.held_why


async def test_a_successor_with_another_subject_replaces_what_stood_in_at_its_first_answer() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2, 3)), subject="web v1")
    async with of.running():
        pass
    after = Followed(ScriptedRegistry(ERROR, answer(7)), predecessor=of.source, subject="web v2")
    assert numbers(after.source.initial()) == [1, 2, 3]
    assert after.source.status.unverified
    async with after.running():
        await after.time.advance(1)
        assert after.last == [7]
        assert not after.source.status.held
        after.registry.tell(answer(8, 9))  # from here on, the guard is as ever
        await after.time.settle()
        assert sorted(after.last) == [7, 8, 9]


async def test_another_subject_that_names_nobody_is_held_like_any_empty_answer() -> None:
    of = Followed(ScriptedRegistry(answer(1, 2)), subject="web")
    async with of.running():
        pass
    after = Followed(ScriptedRegistry(answer()), predecessor=of.source, subject="wbe")
    async with after.running():
        assert after.source.status.held == 2
        third = Followed(ScriptedRegistry(answer(5)), predecessor=after.source, subject="wbe")
        async with third.running():
            assert third.last == [5]
        await after.time.advance(CONFIRM_AFTER_S + 2 * LOOK_S)
        assert after.last == []


async def test_the_state_of_another_subject_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = Told(tmp_path)
    of = Followed(ScriptedRegistry(answer(1, 2)), snapshots, subject="web")
    async with of.running():
        await snapshots.wait()
    assert numbers(Followed(ScriptedRegistry(), snapshots, subject="web").source.initial()) == [1, 2]
    assert Followed(ScriptedRegistry(), snapshots, subject="api").source.initial() is None
    assert "of something else" in caplog.text


async def test_what_stands_in_is_not_kept_as_if_it_were_its_own(tmp_path: Path) -> None:
    of = Followed(ScriptedRegistry(answer(1, 2)), subject="web")
    async with of.running():
        pass
    snapshots = Snapshots(tmp_path)
    after = Followed(ScriptedRegistry(answer()), snapshots, predecessor=of.source, subject="api")
    async with after.running():
        await after.time.advance(5)
        assert after.source.status.held == 2
        assert not snapshots.exists("web", "consul")


NO_NAME = ResolveError("web.test", "no answer", retryable=True)


async def test_last_good_addresses_of_a_name_outlive_a_reload_and_a_restart(tmp_path: Path) -> None:
    snapshots = Told(tmp_path)
    named = Answer((Candidate("web.test", 80), Candidate("10.0.0.9", 80)))
    of = Followed(ScriptedRegistry(named), snapshots)
    of.resolver.answers["web.test"] = Resolution(("10.0.0.1",), 30.0)
    async with of.running():
        await snapshots.wait()
    for successor in (
        Followed(ScriptedRegistry(named), predecessor=of.source),
        Followed(ScriptedRegistry(named), Snapshots(tmp_path)),
    ):
        successor.resolver.answers["web.test"] = NO_NAME
        async with successor.running():
            await successor.time.advance(GuardOptions().hold_s + 10)
            in_force = successor.source.in_force
            assert in_force is not None
            assert sorted(hosts(in_force)) == ["10.0.0.1:80", "10.0.0.9:80"]


@pytest.mark.parametrize(
    ("later", "left", "why"),
    [
        (Resolution(("10.0.0.1",), 3600.0), 1, ""),
        (Resolution(tuple(f"10.0.0.{n}" for n in range(1, 7)), 3600.0), 6, ""),
        (NO_NAME, 6, "after trouble"),
    ],
)
async def test_a_name_that_shrinks_is_asked_again_before_that_is_obeyed(
    later: Resolution | ResolveError, left: int, why: str
) -> None:
    many = Resolution(tuple(f"10.0.0.{n}" for n in range(1, 7)), 1.0)
    of = Followed(ScriptedRegistry(Answer((Candidate("web.test", 80),))))
    of.resolver.answers["web.test"] = many
    async with of.running():
        of.resolver.answers["web.test"] = Resolution(("10.0.0.1",), 3600.0)
        await of.time.advance(2 * LOOK_S)
        assert of.source.status.held == 5
        of.resolver.answers["web.test"] = later
        await of.time.advance(CONFIRM_AFTER_S + 2 * LOOK_S)
        assert of.source.in_force is not None
        assert len(of.source.in_force.members) == left
        assert why in of.source.status.held_why


async def test_names_that_never_resolve_leave_nothing_behind() -> None:
    of = Followed(ScriptedRegistry())
    async with of.running():
        for number in range(50):
            name = f"host-{number}.test"
            of.resolver.answers[name] = NO_NAME
            of.registry.tell(Answer((Candidate("10.0.0.9", 80), Candidate(name, 80))))
            await of.time.advance(30)
        intake = of.source._intake
        assert [len(each) for each in (intake._addresses, intake._due, intake._failures)] == [1, 1, 1]


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


async def test_a_wall_clock_put_back_does_not_keep_the_state_from_being_written(tmp_path: Path) -> None:
    snapshots = Told(tmp_path)
    of = Followed(ScriptedRegistry(answer(1)), snapshots)
    async with of.running():
        await snapshots.wait()
        snapshots.tried.clear()
        of.source._wall = lambda: 5.0
        of.registry.tell(answer(1))
        async with asyncio.timeout(5):
            while not snapshots.tried.is_set():
                await of.time.advance(1)
    saved = snapshots.load("web", "consul")
    assert saved is not None
    assert saved.saved_at == 5.0
