"""Strategies by the name they have in the configuration."""

from __future__ import annotations

from lbproxy.domain.strategy import Strategy
from lbproxy.strategies.least_connection import LeastConnection, LeastOfDraws
from lbproxy.strategies.random_two import RandomTwo
from lbproxy.strategies.round_robin import RoundRobin


def make(type: str, choices: int | None = None) -> Strategy:  # noqa: A002 - the configuration's own word
    """A new strategy without members. `choices` belongs to least_connection: None looks at all endpoints. Raises ValueError
    for a name that is none, and for `choices` below 1 or beside another strategy."""
    if choices is not None and (choices < 1 or type != "least_connection"):
        raise ValueError(f"choices: {choices} is not possible with {type}")
    match type:
        case "round_robin":
            return RoundRobin()
        case "least_connection":
            return LeastConnection() if choices is None else LeastOfDraws(choices)
        case "random":
            return RandomTwo()
        case _:
            raise ValueError(f"no strategy is called {type!r}")
