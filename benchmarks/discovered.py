"""How long the event loop is held when a large upstream changes: answers of a registry, from candidates to the pool's next pick.

    python -m benchmarks.discovered [ENDPOINTS [CHANGED]]     (10000 and 100)

The longest step of the loop (CPU time of its thread) is taken from a callback that asks to be called again at once. The first answer, in which everything is
new, stands apart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import statistics
import sys
import time
from collections.abc import Sequence

from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.discovery.follow import FollowedSource
from lbproxy.discovery.options import DiscoveryOptions
from lbproxy.domain.membership import Difference, Membership
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.strategies.registry import make
from lbproxy.wire.resolver import Resolution

ROUNDS = 20


class Queue:
    """A registry whose answers are put in by hand."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()

    async def next(self) -> Answer:
        return await self.answers.get()

    async def confirm(self) -> Answer:
        raise AssertionError

    async def close(self) -> None:
        return


class Steps:
    """The longest time between two turns of the loop, in seconds of this thread's own CPU: what the machine gave to others does not count."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.longest_s = 0.0
        self._last = time.thread_time()
        self._turn()

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        self._loop.call_soon(self._turn)

    def take(self) -> float:
        longest, self.longest_s = self.longest_s, 0.0
        return longest


def candidates(number: int) -> list[Candidate]:
    return [
        Candidate(
            f"10.{at // 65536}.{at // 256 % 256}.{at % 256}", 8080, zone="a", metadata={"id": f"web-{at}"}
        )
        for at in range(number)
    ]


async def unasked(name: str) -> Resolution:
    raise AssertionError(name)


async def measure(strategy: str, endpoints: int, changed: int) -> list[float]:
    """The longest step of the first answer and of each round after it, in milliseconds."""
    loop = asyncio.get_running_loop()
    options = StrategyOptions(strategy)  # type: ignore[arg-type]
    pool = Pool(PoolOptions("web", strategy=options), lambda of: make(of.type, of.choices))
    applied = asyncio.Event()

    def report(membership: Membership, difference: Difference | None) -> None:
        now = loop.time()
        if difference is None:
            pool.apply_membership(membership, now)
        else:
            pool.apply_difference(difference, now)
        pool.advance(now)
        applied.set()

    registry = Queue()
    source = FollowedSource(
        "web",
        DiscoveryOptions("bench", None),
        registry,
        report,
        print,
        clock=loop.time,
        sleep=asyncio.sleep,
        wall=time.time,
        rng=random.Random(1),
        resolve=unasked,
        is_own=lambda _: False,
        is_down=pool.is_down,
        snapshots=None,
    )
    longest = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run(), name="source")
        now = candidates(endpoints)
        steps = Steps(loop)
        for number in range(ROUNDS + 1):
            start = number * changed % endpoints
            if number:
                now[start : start + changed] = [
                    dataclasses.replace(each, host=f"11.{number}.{at // 256}.{at % 256}")
                    for at, each in enumerate(now[start : start + changed])
                ]
            answer = Answer(tuple([dataclasses.replace(each) for each in now]))
            gc.collect()
            gc.freeze()
            await asyncio.sleep(0.01)
            steps.take()
            applied.clear()
            registry.answers.put_nowait(answer)
            await applied.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            longest.append(steps.take() * 1000)
        task.cancel()
        steps._turn = lambda: None  # type: ignore[method-assign]  # noqa: SLF001 - it would turn for ever
    return longest


def main(arguments: Sequence[str]) -> None:
    endpoints, changed = (int(each) for each in (*arguments, *("10000", "100")[len(arguments) :]))
    print(
        f"{endpoints} endpoints, {changed} of them replaced in each of {ROUNDS} rounds; the loop's longest step, ms of CPU"
    )
    for strategy in ("round_robin", "least_connection", "random"):
        first, *rest = asyncio.run(measure(strategy, endpoints, changed))
        print(
            f"  {strategy:18} median {statistics.median(rest):5.1f}   least {min(rest):5.1f}   most {max(rest):5.1f}   first answer {first:6.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
