"""A day of churn on virtual time: instances come and go under ever new addresses, the registry fails now and then, nothing grows.

LBPROXY_CONFORMANCE=full makes it 200,000 updates; otherwise it is a twentieth of the day.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections import deque

import pytest

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import Difference, Membership
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Lease
from lbproxy.pool.options import PoolOptions
from lbproxy.pool.pool import Pool
from lbproxy.pool.roster import FORGET_AFTER_S
from tests.discovery.followed import Followed
from tests.discovery.members import ScriptedRegistry
from tests.pool.upstream import make_strategy

FULL = os.environ.get("LBPROXY_CONFORMANCE") == "full"
DAY_S = 86_400.0
UPDATES_A_DAY = 200_000
STEP_S = DAY_S / UPDATES_A_DAY
FLEET = 20
SESSIONS = 40


class Day:
    """A source and its pool, sessions on it, and how many blocks of memory all that takes."""

    def __init__(self) -> None:
        self.rng = random.Random(7)
        self.registry = ScriptedRegistry()
        self.of = Followed(self.registry)
        self.pool = Pool(PoolOptions("web"), make_strategy)
        self.of.source._report = self.report
        self.fleet: deque[Candidate] = deque(maxlen=FLEET)
        self.sessions: deque[Lease] = deque()
        self.next_host = 0
        self.empty = 0
        self.applied = 0

    def report(self, membership: Membership, difference: Difference | None) -> None:
        now = self.of.time.now
        if difference is None:
            self.pool.apply_membership(membership, now)
        else:
            self.pool.apply_difference(difference, now)
        self.applied += 1

    def instance(self) -> Candidate:
        self.next_host += 1
        host = f"10.{self.next_host >> 16 & 255}.{self.next_host >> 8 & 255}.{self.next_host & 255}"
        return Candidate(host, 80, self.rng.randrange(1, 4), metadata={"id": str(self.next_host)})

    async def update(self) -> None:
        if self.rng.random() < 0.01:
            self.registry.tell(RegistryError("no leader"))
        self.fleet.append(self.instance())
        self.registry.tell(Answer(tuple(self.fleet), regressed=self.rng.random() < 0.001))
        if len(self.sessions) == SESSIONS:
            self.sessions.popleft().release()
        lease = self.pool.acquire(Context(self.of.time.now, self.rng, "192.0.2.1"))
        if isinstance(lease, Lease):
            self.sessions.append(lease)
        elif self.applied:
            self.empty += 1
        await self.of.time.advance(STEP_S)
        self.pool.advance(self.of.time.now)

    def blocks(self) -> int:
        self.of.errors.clear()
        gc.collect()
        return sys.getallocatedblocks()


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_day_of_churn_leaves_nothing_behind() -> None:
    updates = UPDATES_A_DAY if FULL else UPDATES_A_DAY // 20
    day = Day()
    async with day.of.running():
        for _ in range(updates // 4):
            await day.update()
        before = day.blocks()
        for _ in range(updates - updates // 4):
            await day.update()
        after = day.blocks()
        assert day.empty == 0
        assert day.applied > updates * 0.9
        assert len(day.pool.endpoints()) <= FLEET + (FORGET_AFTER_S + 60) / STEP_S
        assert day.of.source.status.results["error"] > 0
        assert after < before * 1.05 + 1000, f"{before} blocks of memory became {after}"
