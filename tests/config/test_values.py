"""Durations, sizes, percentages, networks: read as written, shown so that they read the same again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config import values


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.duration, "250ms", 0.25),
        (values.duration, "5s", 5.0),
        (values.duration, "1m30s", 90.0),
        (values.duration, "1h", 3600.0),
        (values.duration, "1.5s", 1.5),
        (values.duration, "0s", 0.0),
        (values.size, "64KiB", 65536),
        (values.size, "1MiB", 1048576),
        (values.size, "64kB", 64000),
        (values.percentage, "50%", 0.5),
        (values.percentage, "0.5%", 0.005),
        (values.keepalive, "32767s", 32767.0),
        (lambda text: str(values.network(text)), "10.0.0.1", "10.0.0.1/32"),
        (lambda text: str(values.network(text)), "::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_is_read_as(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "given"),
    [
        *((values.duration, each) for each in ("", "5", 5, "-5s", "5 s", "1s1m", "1s1s", "5S", "\u0665s", "11y", None)),
        *((values.duration, each) for each in ("4000d", "9" * 5000 + "s", "1e3s", True, [1], {"a": 1})),
        *((values.positive_duration, each) for each in ("0s", "0.5ms")),
        *((values.keepalive, each) for each in ("999ms", "1500ms", "32768s")),
        *((values.size, each) for each in ("", 64, "64", "64K", "1023B", "2GiB", "-1KiB", "1.5MiB", "9" * 5000 + "B")),
        *((values.percentage, each) for each in ("0%", "101%", "50", "-1%", 50, "9" * 5000 + "%")),
        *((values.network, each) for each in ("10.0.0.0/33", "10.0.0.1/8", "a", "", 10, None)),
        *((values.target, each) for each in ("a:0", "0.0.0.0:80", "[::]:80", "a:" + "9" * 5000, "a", 80, "unix:")),
        *((values.address, each) for each in ("localhost:80", ":80", "*:80", "::1:80", "unix:/\udcff", "unix:/\0")),
        *((values.address, each) for each in ("[fe80::1%a\0b]:80", "[fe80::1%" + "a" * 16 + "]:80")),
    ],
)  # fmt: skip
def test_is_refused_with_a_reason(read: Callable[[Any], Any], given: object) -> None:
    with pytest.raises(ValueError) as caught:  # the reason is shown to users, so it must not be Python's own
        read(given)
    assert type(caught.value) is ValueError
    assert "int_max_str" not in str(caught.value)


@given(st.integers(0, 10 * 365 * 86400 * 1000))
def test_durations_survive_the_round_trip(milliseconds: int) -> None:
    text = values.format_duration(milliseconds / 1000)
    assert round(values.duration(text) * 1000) == milliseconds
    assert values.format_duration(values.duration(text)) == text


@given(st.integers(1024, 2**30))
def test_sizes_survive_the_round_trip(count: int) -> None:
    assert values.size(values.format_size(count)) == count


@given(anything=st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.integers())))
@pytest.mark.parametrize(
    "read",
    [values.duration, values.size, values.percentage, values.network, values.address, values.target, values.source_ip],
)  # fmt: skip
def test_anything_else_is_a_value_error(read: Callable[[object], object], anything: object) -> None:
    try:
        read(anything)
    except ValueError:
        return
