"""Nanoseconds per pick and return (acquire, then release) of each strategy at several sizes, through the pool as a session uses it.

python -m benchmarks.picks
"""

from __future__ import annotations

import random
import statistics
import time

from lbproxy.domain.address import ip_address
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.strategy import Context
from lbproxy.pool.lease import Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.strategies.registry import make

SIZES = (10, 1_000, 10_000)
STRATEGIES = {
    "round_robin, equal weights": (StrategyOptions("round_robin"), 1),
    "round_robin, 10 different weights": (StrategyOptions("round_robin"), 10),
    "least_connection": (StrategyOptions("least_connection"), 10),
    "least_connection, choices 3": (StrategyOptions("least_connection", choices=3), 10),
    "random": (StrategyOptions("random"), 10),
}
HELD = 2_000  # sessions that live at a time
ROUNDS = 7
PICKS = 20_000


def pool_of(options: StrategyOptions, size: int, weights: int) -> Pool:
    pool = Pool(PoolOptions("web", strategy=options), lambda each: make(each.type, each.choices))
    addresses = (ip_address(f"10.{i >> 14 & 255}.{i >> 7 & 127}.{i & 127}", 80) for i in range(size))
    members = tuple(Member(address, weight=1 + i % weights) for i, address in enumerate(addresses))
    began = time.perf_counter()
    pool.apply_membership(Membership(members), 0.0)
    pool.rebuild_ms = (time.perf_counter() - began) * 1000  # type: ignore[attr-defined]
    return pool


def ns_per_pick(pool: Pool) -> float:
    context = Context(0.0, random.Random(1), "10.0.0.1")
    held: list[Lease] = []
    for _ in range(HELD):
        lease = pool.acquire(context)
        assert isinstance(lease, Lease)
        held.append(lease)
    order = [random.Random(2).randrange(HELD) for _ in range(PICKS)]
    figures = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for place in order:
            held[place].release()
            held[place] = pool.acquire(context)  # type: ignore[assignment]
        figures.append((time.perf_counter_ns() - began) / PICKS)
    return statistics.median(figures)


def main() -> None:
    print(
        f"| strategy | {' | '.join(f'{size:,} endpoints' for size in SIZES)} | first build of {SIZES[-1]:,} |"
    )
    print("| --- |" + " --- |" * (len(SIZES) + 1))
    for name, (options, weights) in STRATEGIES.items():
        pools = [pool_of(options, size, weights) for size in SIZES]
        figures = [f"{ns_per_pick(pool):,.0f} ns" for pool in pools]
        print(f"| {name} | {' | '.join(figures)} | {pools[-1].rebuild_ms:.0f} ms |")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
