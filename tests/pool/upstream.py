"""Pools and members for tests of the pool."""

from __future__ import annotations

import random
from collections.abc import Collection

from lbproxy.domain.address import Address, ip_address
from lbproxy.domain.effects import Effect, EndpointAdded, EndpointForgotten
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.membership import Member, Membership
from lbproxy.domain.strategy import Context, Strategy
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.pool.pool import Pool
from lbproxy.strategies.registry import make

ROUND_ROBIN = StrategyOptions("round_robin")
LEAST_CONNECTION = StrategyOptions("least_connection")
RANDOM = StrategyOptions("random")


def make_strategy(options: StrategyOptions) -> Strategy:
    return make(options.type, options.choices)


def member(number: int, *, weight: int = 1, priority: int = 0, limit: int | None = None) -> Member:
    return Member(ip_address(f"10.0.0.{number}", 80), weight, priority, max_connections=limit)


def label(number: int) -> str:
    return f"10.0.0.{number}:80"


def pool_of(*members: Member, strategy: StrategyOptions = ROUND_ROBIN) -> Pool:
    pool = Pool(PoolOptions("web", strategy=strategy), make_strategy)
    pool.apply_membership(Membership(members), 0.0)
    return pool


def original_dst() -> Pool:
    return Pool(PoolOptions("any", kind="original_dst"), make_strategy)


def context(tried: Collection[Endpoint] = (), destination: Address | None = None) -> Context:
    made = Context(0.0, random.Random(1), "192.0.2.1", destination)
    made.tried = tried
    return made


def take(pool: Pool, tried: Collection[Endpoint] = ()) -> Lease:
    lease = pool.acquire(context(tried))
    assert isinstance(lease, Lease), lease
    return lease


def refused(pool: Pool, tried: Collection[Endpoint] = ()) -> Exhausted:
    why = pool.acquire(context(tried))
    assert isinstance(why, Exhausted), why
    return why


def numbers(pool: Pool, count: int) -> list[int]:
    """Which endpoints the next sessions get; each ends at once."""
    picked = []
    for _ in range(count):
        lease = take(pool)
        picked.append(int(lease.address.host.rpartition(".")[2]))
        lease.release()
    return picked


def endpoint(pool: Pool, number: int) -> Endpoint:
    (found,) = [e for e in pool.endpoints() if e.label == label(number)]
    return found


def added(effects: list[Effect]) -> list[str]:
    return [effect.endpoint.label for effect in effects if isinstance(effect, EndpointAdded)]


def forgotten(effects: list[Effect]) -> list[str]:
    return [effect.endpoint.label for effect in effects if isinstance(effect, EndpointForgotten)]
