"""Lists of endpoints in every form that is understood, and what becomes of those that are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.documents import read_document, read_entry, split_target, whole
from lbproxy.domain.errors import RegistryError

ONE = Candidate("10.0.0.1", 80)
FULL = Candidate("10.0.0.1", 80, 3, 1, "eu-1a", 500, {"version": "v2", "canary": "true", "build": "7"})
FULL_WRITTEN = {
    "weight": 3,
    "zone": "eu-1a",
    "priority": 1,
    "max_connections": 500,
    "metadata": {"version": "v2", "canary": True, "build": 7, "nothing": None, "nested": {"a": 1}},
}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], ()),
        (["10.0.0.1:80"], (ONE,)),
        ({"endpoints": ["10.0.0.1:80"], "generated": "today"}, (ONE,)),
        ({"endpoints": []}, ()),
        ([{"address": "10.0.0.1:80", **FULL_WRITTEN}], (FULL,)),
        ([{"address": "10.0.0.1", "port": 80, "more": 1}], (ONE,)),
        ([{"address": "10.0.0.1", "port": "80"}], (ONE,)),
        ([{"address": "[::1]", "port": 80}, "[::1]:80"], (Candidate("::1", 80), Candidate("::1", 80))),
        (["b.internal:1", "a.internal:2"], (Candidate("b.internal", 1), Candidate("a.internal", 2))),
        ([{"targets": ["10.0.0.1:80"]}], (ONE,)),
        ([{"targets": [], "labels": {"a": "b"}}], ()),
        (
            [
                {"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"zone": "z", "weight": "3"}},
                "10.0.0.3:80",
            ],
            (
                Candidate("10.0.0.1", 80, 3, zone="z", metadata={"zone": "z", "weight": "3"}),
                Candidate("10.0.0.2", 80, 3, zone="z", metadata={"zone": "z", "weight": "3"}),
                Candidate("10.0.0.3", 80),
            ),
        ),
        ([{"address": "10.0.0.1:80", "weight": 2.0, "zone": 1}], (Candidate("10.0.0.1", 80, 2, zone="1"),)),
        ([{"address": "10.0.0.1:80", "weight": None, "zone": "", "metadata": None}], (ONE,)),
    ],
)
def test_a_document_is_read(document: Any, expected: tuple[Candidate, ...]) -> None:
    found = read_document(document)
    assert found == expected
    assert [dict(each.metadata) for each in found] == [dict(each.metadata) for each in expected]


@pytest.mark.parametrize(
    "document",
    [
        None,
        "10.0.0.1:80",
        7,
        {},
        {"error": "no leader"},
        {"endpoints": None},
        {"endpoints": {"10.0.0.1:80": {}}},
        [{"targets": "10.0.0.1:80"}],
        [{"targets": [], "labels": ["a"]}],
    ],
)
def test_what_is_no_list_of_endpoints_is_an_error(document: Any) -> None:
    with pytest.raises(RegistryError):
        read_document(document)


@pytest.mark.parametrize(
    ("entry", "number"),
    [
        ("10.0.0.1", "port"),
        ("", "port"),
        (":80", "port"),
        ("10.0.0.1:http", "port"),
        ("10.0.0.1:-1", "port"),
        ("fe80::1:80", "port"),
        ("unix:/run/web.sock", "port"),
        (f"10.0.0.1:{'9' * 5000}", "port"),
        (None, "port"),
        (5, "port"),
        (["10.0.0.1:80"], "port"),
        ({}, "port"),
        ({"address": 5}, "port"),
        ({"address": "10.0.0.1:80", "port": []}, "port"),
        ({"address": "10.0.0.1:80", "metadata": "v2"}, "port"),
        ({"address": "10.0.0.1:80", "zone": ["a"]}, "port"),
        ({"address": "10.0.0.1:80", "weight": "heavy"}, "weight"),
        ({"address": "10.0.0.1:80", "weight": 1.5}, "weight"),
        ({"address": "10.0.0.1:80", "weight": True}, "weight"),
        ({"address": "10.0.0.1:80", "weight": float("nan")}, "weight"),
        ({"address": "10.0.0.1:80", "weight": float("inf")}, "weight"),
        ({"address": "10.0.0.1:80", "priority": {}}, "priority"),
        ({"address": "10.0.0.1:80", "max_connections": "many"}, "max_connections"),
    ],
)
def test_a_bad_entry_is_passed_on_to_be_refused_by_itself(entry: Any, number: str) -> None:
    first, second = read_document([entry, "10.0.0.2:80"])
    assert getattr(first, number) == -1
    assert second == Candidate("10.0.0.2", 80)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_plain = st.recursive(
    _scalars,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["endpoints", "address", "port", "weight", "metadata", "targets", "labels", "zone"]
            )
            | st.text(max_size=5),
            below,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_plain)
def test_any_plain_data_is_read_or_is_an_error_and_no_entry_is_lost(document: Any) -> None:
    try:
        found = read_document(document)
    except RegistryError:
        return
    listed = document["endpoints"] if isinstance(document, dict) else document
    count = sum(
        len(each["targets"]) if isinstance(each, dict) and "targets" in each and "address" not in each else 1
        for each in listed
    )
    assert len(found) == count
    for each in found:
        assert isinstance(each.host, str)
        for number in (each.port, each.weight, each.priority):
            assert type(number) is int
        assert {type(text) for pair in each.metadata.items() for text in pair} <= {str}


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_is_split_as_it_is_written(ip: Any, port: int) -> None:
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    assert split_target(f"{host}:{port}") == (str(ip), port)
    assert read_entry({"address": str(ip), "port": port}) == Candidate(str(ip), port)


@pytest.mark.parametrize(
    ("value", "number"), [("٣", -1), (" 3", -1), ("3", 3), (-4, -4), ("", -1), (b"3", -1)]
)
def test_a_number_is_a_whole_one_in_decimal_digits(value: Any, number: int) -> None:
    assert whole(value, 9) == number
