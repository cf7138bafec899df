"""Leases as a registry, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.push.leases import Leases
from lbproxy.discovery.push.registry import WELL_AGAIN_S, PushRegistry
from lbproxy.domain.address import Address
from tests.discovery.virtual import VirtualTime

A = Address("10.0.0.1", 80, "inet")
B = Address("10.0.0.2", 80, "inet")
ONE = Candidate("10.0.0.1", 80)
TWO = Candidate("10.0.0.2", 80)


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def leases() -> Leases:
    return Leases()


@asynccontextmanager
async def following(registry: PushRegistry) -> AsyncIterator[list[Answer]]:
    """What the registry says one after the other."""
    answers: list[Answer] = []

    async def follow() -> None:
        while True:
            answers.append(await registry.next())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow(), name="follow")
        yield answers
        task.cancel()


async def test_the_first_answer_comes_at_once_and_says_that_nothing_is_remembered(
    time: VirtualTime, leases: Leases
) -> None:
    registry = PushRegistry(leases, time.clock, time.sleep)
    assert await registry.next() == Answer((), regressed=True)


async def test_a_registration_is_told_at_once_and_its_end_when_it_is_due(
    time: VirtualTime, leases: Leases
) -> None:
    async with following(PushRegistry(leases, time.clock, time.sleep)) as answers:
        await time.settle()
        leases.put(A, ONE, 30, time.now)
        await time.settle()
        assert answers[1:] == [Answer((ONE,))]
        await time.advance(29)
        assert len(answers) == 2
        await time.advance(1)
        assert answers[2:] == [Answer(())]


async def test_who_renews_stays(time: VirtualTime, leases: Leases) -> None:
    async with following(PushRegistry(leases, time.clock, time.sleep)) as answers:
        leases.put(B, TWO, 3600, time.now)
        for _ in range(10):
            leases.put(A, ONE, 30, time.now)
            await time.advance(20)
        assert {each.candidates for each in answers} == {(TWO, ONE)}
        await time.advance(10)
        assert answers[-1] == Answer((TWO,))


async def test_a_lease_that_is_made_shorter_ends_earlier(time: VirtualTime, leases: Leases) -> None:
    async with following(PushRegistry(leases, time.clock, time.sleep)) as answers:
        leases.put(A, ONE, 3600, time.now)
        await time.settle()
        leases.put(A, ONE, 5, time.now)
        await time.advance(5)
        assert answers[-1] == Answer(())


async def test_without_a_change_it_says_so_now_and_again(time: VirtualTime, leases: Leases) -> None:
    leases.put(A, ONE, 3600, time.now)
    async with following(PushRegistry(leases, time.clock, time.sleep)) as answers:
        await time.advance(2.5 * WELL_AGAIN_S)
        assert len(answers) == 3
        assert all(each.candidates is answers[0].candidates for each in answers)
        assert len(time.waits) == 1


async def test_a_second_opinion_counts_what_has_run_out_meanwhile(time: VirtualTime, leases: Leases) -> None:
    registry = PushRegistry(leases, time.clock, time.sleep)
    leases.put(A, ONE, 30, time.now)
    assert (await registry.confirm()).candidates == (ONE,)
    time.now += 30
    assert await registry.confirm() == Answer(())


async def test_the_leases_outlive_the_source(time: VirtualTime, leases: Leases) -> None:
    async with following(PushRegistry(leases, time.clock, time.sleep)):
        leases.put(A, ONE, 30, time.now)
        await time.settle()
    successor = PushRegistry(leases, time.clock, time.sleep)
    assert await successor.next() == Answer((ONE,))
    await successor.close()
    assert await successor.next() == Answer((ONE,))


@pytest.mark.parametrize("turns", range(6))
async def test_it_can_be_cancelled_at_any_point(time: VirtualTime, leases: Leases, turns: int) -> None:
    registry = PushRegistry(leases, time.clock, time.sleep)
    await registry.next()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(registry.next(), name="next")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    leases.put(A, ONE, 30, time.now)
    assert (await registry.next()).candidates == (ONE,)


async def test_10_000_registrations_that_are_renewed_cause_no_answer(
    time: VirtualTime, leases: Leases
) -> None:
    targets = [Address(f"10.1.{n >> 8}.{n & 255}", 80, "inet") for n in range(10_000)]
    candidates = [Candidate(each.host, 80) for each in targets]
    for target, candidate in zip(targets, candidates, strict=True):
        leases.put(target, candidate, 30, time.now)
    async with following(PushRegistry(leases, time.clock, time.sleep)) as answers:
        await time.settle()
        await time.advance(10)
        for target, candidate in zip(targets, candidates, strict=True):
            leases.put(target, candidate, 30, time.now)
        await time.advance(25)
        assert len(answers) == 1
        assert len(answers[0].candidates) == 10_000
