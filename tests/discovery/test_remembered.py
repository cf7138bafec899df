"""What a source begins with: the state on disk, or what its predecessor had in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lbproxy.discovery.follow import FRESH_S, LOOK_S
from lbproxy.discovery.guard import CONFIRM_AFTER_S
from lbproxy.discovery.options import GuardOptions
from lbproxy.discovery.snapshots import Saved, Snapshots
from tests.discovery.followed import ERROR, Followed, Told
from tests.discovery.members import ScriptedRegistry, answer, members, numbers
from tests.patience import WITHIN_S


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


async def test_old_state_gives_way_to_the_first_answer_that_names_anybody(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    of = Followed(ScriptedRegistry(), snapshots)
    snapshots.save(
        "web", "consul", Saved(members(1, 2, 3), (1_000_000.0 + of.time.now) - FRESH_S - 1, of.source.subject)
    )
    of = Followed(ScriptedRegistry(answer(), answer(7)), snapshots)
    async with of.running():
        await of.time.advance(1)
        assert of.last == [7]


async def test_young_state_is_guarded_against_a_registry_that_fills_up(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    of = Followed(ScriptedRegistry(), snapshots)
    snapshots.save(
        "web",
        "consul",
        Saved(members(1, 2, 3), (1_000_000.0 + of.time.now) - FRESH_S + 60, of.source.subject),
    )
    of = Followed(ScriptedRegistry(answer(), answer(1)), snapshots)
    async with of.running():
        await of.time.advance(60)
        assert sorted(numbers(of.source.in_force)) == [1, 2, 3]


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
        async with asyncio.timeout(WITHIN_S):
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


async def test_a_wall_clock_put_back_does_not_keep_the_state_from_being_written(tmp_path: Path) -> None:
    snapshots = Told(tmp_path)
    of = Followed(ScriptedRegistry(answer(1)), snapshots)
    async with of.running():
        await snapshots.wait()
        snapshots.tried.clear()
        of.source._wall = lambda: 5.0
        of.registry.tell(answer(1))
        async with asyncio.timeout(WITHIN_S):
            while not snapshots.tried.is_set():
                await of.time.advance(1)
    saved = snapshots.load("web", "consul")
    assert saved is not None
    assert saved.saved_at == 5.0
