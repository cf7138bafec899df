"""Strategies by their configured names."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from lbproxy.pool.options import StrategyOptions
from lbproxy.strategies.least_connection import LeastConnection, LeastOfDraws
from lbproxy.strategies.random_two import RandomTwo
from lbproxy.strategies.registry import make
from lbproxy.strategies.round_robin import RoundRobin


@pytest.mark.parametrize(
    ("name", "choices", "kind"),
    [
        ("round_robin", None, RoundRobin),
        ("least_connection", None, LeastConnection),
        ("least_connection", 2, LeastOfDraws),
        ("random", None, RandomTwo),
    ],
)
def test_each_name_makes_its_strategy(name: str, choices: int | None, kind: type) -> None:
    assert type(make(name, choices)) is kind


def test_every_name_the_options_allow_can_be_made() -> None:
    for name in get_args(get_type_hints(StrategyOptions)["type"]):
        make(name, None)


@pytest.mark.parametrize(("name", "choices"), [("first", None), ("round_robin", 2), ("least_connection", 0)])
def test_what_cannot_be_made_is_refused(name: str, choices: int | None) -> None:
    with pytest.raises(ValueError, match=name):
        make(name, choices)
