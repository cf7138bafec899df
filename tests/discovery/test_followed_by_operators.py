"""A registry followed: what an operator is told of it and may do about it, on virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lbproxy.app.following import complain
from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.journal import RECOVERY_PAUSE_S
from lbproxy.discovery.pace import ASKED_SPREAD, RETRY
from lbproxy.domain.errors import RegistryError
from lbproxy.proxy.complaints import Complaints
from lbproxy.wire.resolver import Resolution
from tests.discovery.followed import ERROR, Followed
from tests.discovery.members import ScriptedRegistry, address, answer


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


async def test_that_nobody_is_named_is_said_once_and_once_that_somebody_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A question with a misspelt name in it has an empty answer like any other."""
    caplog.set_level(logging.INFO)
    empty = "upstream web: consul: answers, and names no endpoint: service 'wbe' is empty, or misspelt in the configuration"
    of = Followed(ScriptedRegistry(answer(), answer(), ERROR, answer()), asks_for="service 'wbe'")
    async with of.running():
        await of.time.advance(60)
        assert [line for line in caplog.messages if "no endpoint" in line] == [empty]
        assert of.source.status.endpoints == 0
        assert not [line for line in caplog.messages if "names endpoints now" in line]
    caplog.clear()
    after = Followed(ScriptedRegistry(answer()), asks_for="service 'wbe'", predecessor=of.source)
    async with after.running():
        assert caplog.messages == []  # a reload does not say it again
        for each in (answer(1), answer(), answer(1), answer()):
            after.registry.tell(each)
            await after.time.advance(60)
        told = [line for line in caplog.messages if "names" in line]
        assert told == ["upstream web: consul: names endpoints now"]


@pytest.mark.parametrize(
    ("subject", "asks_for", "said"),
    [("other", "service 'api'", 1), ("", "service 'web'", 0), ("other", "", 0)],
    ids=["another subject", "the same", "what has no name"],
)
async def test_that_nobody_is_named_is_news_of_a_subject_that_has_named_nobody(
    caplog: pytest.LogCaptureFixture, subject: str, asks_for: str, said: int
) -> None:
    of = Followed(ScriptedRegistry(answer(1)), asks_for="service 'web'")
    async with of.running():
        pass
    after = Followed(ScriptedRegistry(answer()), subject=subject, asks_for=asks_for, predecessor=of.source)
    async with after.running():
        assert after.source.status.held == 1
        assert len([line for line in caplog.messages if "names no endpoint" in line]) == said


async def test_an_operator_has_the_last_answer_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    of = Followed(ScriptedRegistry(answer(*range(10)), ERROR, answer(1)))
    async with of.running():
        await of.time.advance(RETRY.cap_s)
        assert of.source.status.held == 9
        reports = len(of.reports)
        assert await of.source.obey() == 9
        assert (of.last, len(of.reports)) == ([1], reports + 1)
        assert (of.source.status.held, of.source.status.results["confirmed"]) == (0, 1)
        told = "upstream web: consul: 9 endpoints are let go: an operator has the last answer obeyed"
        assert told in caplog.messages
        assert await of.source.obey() == 0
        of.registry.tell(answer())
        await of.time.settle()
        assert of.source.status.held == 1


async def test_what_is_obeyed_is_what_is_held_when_the_operator_says_so() -> None:
    """Not what an answer holds that is still on its way in: its names are being resolved."""
    of = Followed(ScriptedRegistry(answer(*range(10)), ERROR, answer(1, 2, 3)))
    slow = asyncio.get_running_loop().create_future()
    of.resolver.answers["slow"] = slow
    async with of.running():
        await of.time.advance(RETRY.cap_s)
        assert of.source.status.held == 7
        of.registry.tell(Answer((*answer(1).candidates, Candidate("slow", 80))))
        await of.time.settle()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(of.source.obey(), name="obey")
            await of.time.settle()
            assert not asked.done()
            slow.set_result(Resolution((address(1).host,), 60.0))
        assert asked.result() == 7
        assert sorted(of.last) == [1, 2, 3]
        assert of.source.status.held == 2


async def test_when_it_is_asked_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    of = Followed(ScriptedRegistry(RegistryError("429", retry_after_s=77.0), answer(1)))
    complaints = Complaints(logging.getLogger("lbproxy.discovery"))
    of.source._failed = lambda error: complain(complaints, "web", error, 0, of.time.now)
    async with of.running():
        wait_s = of.source.status.retry_in_s
        assert wait_s is not None
        assert 77.0 <= wait_s <= 77.0 * (1.0 + ASKED_SPREAD)
        assert caplog.messages == [
            f"upstream web: consul: 429; it has no endpoint yet; next try in {wait_s:.1f} s"
        ]
        await of.time.advance(70)
        assert of.source.status.retry_in_s == pytest.approx(wait_s - 70)
        await of.time.advance(wait_s - 69.9)
        assert not of.source.status.retry_in_s
        assert of.source.status.error == ""
