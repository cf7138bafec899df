"""A flood of the same trouble is a few lines."""

from __future__ import annotations

import logging

import pytest

from lbproxy.proxy.complaints import INTERVAL_S, Complaints


def test_the_same_trouble_is_told_once_an_interval_with_its_number(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(logging.getLogger("t"))
    for tick in range(1000):
        complaints.say(logging.WARNING, "accept web", "no descriptors", 100 + tick * 0.001)
    complaints.say(logging.WARNING, "accept web", "no descriptors", 100 + INTERVAL_S)
    assert caplog.messages == ["no descriptors", "no descriptors (and 999 times since this was said last)"]


def test_another_trouble_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(logging.getLogger("t"))
    complaints.say(logging.WARNING, "a", "one", 0.0)
    complaints.say(logging.ERROR, "b", "two", 0.0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
