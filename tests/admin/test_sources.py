"""What is said of a source, in one word and in lines."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.admin import sources
from lbproxy.admin.shapes import SourceStatus
from tests.admin.fake import source


def told(**differs: Any) -> SourceStatus:
    found = SourceStatus(**{**source(), "name": "consul", "kind": "consul", **differs})  # type: ignore[typeddict-item]
    found["state"] = sources.state(found)
    return found


@pytest.mark.parametrize(
    ("differs", "lines"),
    [
        ({}, ["current: last answer 5.0s ago, 0 errors"]),
        ({"age_s": None, "results": {}}, ["waiting: no answer yet, 0 errors"]),
        (
            {"age_s": None, "results": {"error": 2}, "error": "cannot connect"},
            ["waiting: no answer yet, 2 errors", "now: cannot connect"],
        ),
        (
            {"age_s": 75.0, "results": {"error": 2}, "error": "<b>refused</b>", "retry_in_s": 12.34},
            ["stale: last answer 1m15s ago, 2 errors", "now: <b>refused</b>; next try in 12.3s"],
        ),
        (
            {"held": 3, "held_why": "until a second answer"},
            ["held: last answer 5.0s ago, 0 errors", "3 endpoints held until a second answer"],
        ),
        (
            {"age_s": None, "unverified": True, "snapshot_age_s": 7200.0},
            ["unverified: no answer yet, 0 errors", "endpoints as they were 2h00m ago, from the disk"],
        ),
        (
            {"age_s": None, "unverified": True, "error": "cannot connect", "results": {"error": 1}},
            [
                "unverified: no answer yet, 1 error",
                "now: cannot connect",
                "endpoints of the source that it takes the place of",
            ],
        ),
        (
            {"refused": {"port": 2, "limit": 0, "address": 1}},
            ["current: last answer 5.0s ago, 0 errors", "refused: 1 address, 2 port"],
        ),
        (
            {"endpoints": 0, "asks_for": "service 'wbe'"},
            [
                "current: last answer 5.0s ago, 0 errors",
                "names no endpoint: service 'wbe' is empty, or misspelt in the configuration",
            ],
        ),
        ({"endpoints": 0}, ["current: last answer 5.0s ago, 0 errors", "names no endpoint"]),
        ({"endpoints": 0, "asks_for": "path '/x'", "age_s": None}, ["waiting: no answer yet, 0 errors"]),
        ({"kind": "static"}, ["endpoints of the configuration"]),
        (
            {"kind": "static", "error": "db.example: no such name", "results": {"error": 1}},
            ["stale: last answer 5.0s ago, 1 error", "now: db.example: no such name"],
        ),
    ],
)
def test_a_source_is_told_in_lines(differs: dict[str, Any], lines: list[str]) -> None:
    assert sources.says(told(**differs)) == lines
