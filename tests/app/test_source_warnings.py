"""What readiness warns of, source by source."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbproxy.app.operations import source_warnings
from lbproxy.app.running import Running
from lbproxy.discovery.contract import SourceStatus


def running(refreshed_at: float | None, **status: Any) -> Running:
    """One upstream with one source."""
    source = SimpleNamespace(name="consul", refreshed_at=refreshed_at, status=SourceStatus({}, 1.0, **status))
    configuration = SimpleNamespace(upstreams={"web": None})
    upstreams = {"web": SimpleNamespace(sources=[source])}
    return cast(
        "Running", SimpleNamespace(loaded=SimpleNamespace(configuration=configuration), upstreams=upstreams)
    )


@pytest.mark.parametrize(
    ("refreshed_at", "status", "warnings"),
    [
        (1.0, {}, []),
        (None, {}, ["consul has not answered yet"]),
        (None, {"asks_for": "service 'web'"}, ["consul has not answered yet (service 'web')"]),
        (None, {"error": "no"}, ["consul gives no answer, and is asked again: no"]),
        (1.0, {"error": "no", "retry_in_s": 3.0}, ["consul gives no answer, and is asked again: no"]),
        (1.0, {"error": "no", "retry_in_s": 2.0}, ["consul gives no answer, and is asked again: no"]),
        (
            1.0,
            {"held": 2, "held_why": "for a while"},
            ["2 endpoints that consul no longer names are held for a while"],
        ),
        (None, {"unverified": True}, ["consul has not answered yet; endpoints are those last known"]),
        (
            None,
            {"unverified": True, "error": "no"},
            [
                "consul gives no answer, and is asked again: no",
                "consul has not answered yet; endpoints are those last known",
            ],
        ),
    ],
)
def test_a_source_that_does_not_fare_well_is_named_in_words_that_stay(
    refreshed_at: float | None, status: dict[str, Any], warnings: list[str]
) -> None:
    assert source_warnings(running(refreshed_at, **status)) == [f"upstream web: {each}" for each in warnings]
