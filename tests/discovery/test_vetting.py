"""What is taken of a registry's entries, and why the rest is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.options import StaticEndpoint
from lbproxy.discovery.vetting import MAX_METADATA, MAX_TEXT, Refusal, undialable, vet
from lbproxy.domain.membership import Member

GOOD = Candidate("10.0.0.1", 80)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"port": 0}, Refusal.PORT),
        ({"port": -1}, Refusal.PORT),
        ({"port": 65536}, Refusal.PORT),
        ({"weight": -1}, Refusal.VALUE),
        ({"weight": 65536}, Refusal.VALUE),
        ({"priority": -1}, Refusal.VALUE),
        ({"priority": 1001}, Refusal.VALUE),
        ({"max_connections": 0}, Refusal.VALUE),
        ({"host": ""}, Refusal.ADDRESS),
        ({"host": "10.0.0.999"}, Refusal.ADDRESS),
        ({"host": "unix:/run/secret.sock"}, Refusal.ADDRESS),
        ({"host": "a b"}, Refusal.ADDRESS),
        ({"host": "http://x"}, Refusal.ADDRESS),
        ({"host": "x" * 2000}, Refusal.TOO_LONG),
        ({"zone": "z" * (MAX_TEXT + 1)}, Refusal.TOO_LONG),
        ({"metadata": {"k" * (MAX_TEXT + 1): ""}}, Refusal.TOO_LONG),
        ({"metadata": {"k": "v" * (MAX_TEXT + 1)}}, Refusal.TOO_LONG),
        ({"metadata": {str(number): "" for number in range(MAX_METADATA + 1)}}, Refusal.TOO_LONG),
    ],
)
def test_an_entry_out_of_form_is_refused_for_its_reason(changes: dict[str, Any], why: Refusal) -> None:
    assert vet(replace(GOOD, **changes)) is why


def test_a_sound_entry_becomes_a_member_with_all_it_says() -> None:
    became = vet(Candidate("::ffff:10.0.0.1", 80, 3, 1, "a", 5, {"version": "v2"}))
    assert isinstance(became, Member)
    assert str(became.address) == "10.0.0.1:80"
    assert (became.weight, became.priority, became.zone, became.max_connections) == (3, 1, "a", 5)
    assert became.metadata == {"version": "v2"}


def test_a_host_name_is_left_to_be_resolved() -> None:
    became = vet(Candidate("DB.internal.", 5432))
    assert isinstance(became, StaticEndpoint)
    assert str(became.target) == "db.internal:5432"


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", None),
        ("10.1.2.3", None),
        ("192.168.0.1", None),
        ("2001:db8::1", None),
        ("fd12::1", None),
        ("::1", None),
        ("224.0.0.1", Refusal.ADDRESS),
        ("255.255.255.255", Refusal.ADDRESS),
        ("0.0.0.0", Refusal.ADDRESS),
        ("::", Refusal.ADDRESS),
        ("ff02::1", Refusal.ADDRESS),
        ("169.254.169.254", Refusal.LINK_LOCAL),
        ("64:ff9b::a9fe:a9fe", Refusal.LINK_LOCAL),
        ("64:ff9b::a00:1", None),
        ("2002:a9fe:a9fe::1", Refusal.LINK_LOCAL),
        ("::a9fe:a9fe", Refusal.LINK_LOCAL),
        ("169.253.1.1", None),
        ("fe80::1", Refusal.LINK_LOCAL),
        ("febf::1", Refusal.LINK_LOCAL),
        ("fec0::1", None),
        ("fd00:ec2::254", Refusal.CLOUD_METADATA),
        ("100.100.100.200", Refusal.CLOUD_METADATA),
        ("223.255.255.1", None),
    ],
)
def test_addresses_that_nobody_should_dial(host: str, why: Refusal | None) -> None:
    assert undialable(host) is why


@given(
    st.text(max_size=80),
    st.integers(-10, 70000),
    st.integers(-10, 70000),
    st.one_of(st.none(), st.text(max_size=30)),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_whatever_a_registry_writes_nothing_breaks(
    host: str, port: int, weight: int, zone: str | None, metadata: dict[str, str]
) -> None:
    became = vet(Candidate(host, port, weight, 0, zone, None, metadata))
    if isinstance(became, Member):
        assert 1 <= became.address.port <= 65535
        assert 0 <= became.weight <= 65535
        assert became.address.family != "unix"
