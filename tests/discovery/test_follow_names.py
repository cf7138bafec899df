"""Host names that a registry tells, followed: a DNS in trouble takes nothing away."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.follow import LOOK_S
from lbproxy.discovery.guard import CONFIRM_AFTER_S
from lbproxy.discovery.options import GuardOptions
from lbproxy.discovery.snapshots import Snapshots
from lbproxy.domain.errors import ResolveError
from lbproxy.wire.resolver import Resolution
from tests.discovery.followed import Followed, Told
from tests.discovery.members import ScriptedRegistry, hosts


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
