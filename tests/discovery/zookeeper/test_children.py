"""What stands in a node, in every form that is understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.zookeeper.children import read_child

CURATOR: dict[str, Any] = {
    "name": "web",
    "id": "5f0c",
    "address": "10.0.0.1",
    "port": 8080,
    "sslPort": None,
    "payload": None,
    "registrationTimeUTC": 1_764_000_000_000,
    "serviceType": "DYNAMIC",
    "uriSpec": None,
}
SPRING = {
    "@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
    "id": "application-1",
    "name": "web",
    "metadata": {"instance_status": "UP", "zone": "eu-1a", "weight": "3"},
}


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("10.0.0.1:80", "", Candidate("10.0.0.1", 80)),
        ("[::1]:80", " \n", Candidate("::1", 80)),
        ("x", "10.0.0.1:80\n", Candidate("10.0.0.1", 80)),
        ("x", "web.internal:80", Candidate("web.internal", 80)),
        ("x", '"10.0.0.1:80"', Candidate("10.0.0.1", 80)),
        ("x", {"address": "10.0.0.1:80", "weight": 3, "zone": "z"}, Candidate("10.0.0.1", 80, 3, zone="z")),
        ("x", {"address": "10.0.0.1", "port": 80}, Candidate("10.0.0.1", 80)),
        ("x", CURATOR, Candidate("10.0.0.1", 8080, metadata={"id": "5f0c"})),
        (
            "x",
            {**CURATOR, "port": None, "sslPort": 8443},
            Candidate("10.0.0.1", 8443, metadata={"id": "5f0c"}),
        ),
        ("x", {**CURATOR, "enabled": True}, Candidate("10.0.0.1", 8080, metadata={"id": "5f0c"})),
        ("x", {**CURATOR, "enabled": False}, Candidate("10.0.0.1", 8080, 0, metadata={"id": "5f0c"})),
        ("x", {**CURATOR, "payload": "free text"}, Candidate("10.0.0.1", 8080, metadata={"id": "5f0c"})),
        (
            "x",
            {**CURATOR, "payload": {"@class": "com.example.Details", "weight": 2, "version": "v2"}},
            Candidate("10.0.0.1", 8080, 2, metadata={"id": "5f0c", "version": "v2", "weight": "2"}),
        ),
        (
            "x",
            {**CURATOR, "payload": SPRING},
            Candidate(
                "10.0.0.1",
                8080,
                3,
                zone="eu-1a",
                metadata={
                    "id": "application-1",
                    "name": "web",
                    "instance_status": "UP",
                    "zone": "eu-1a",
                    "weight": "3",
                },
            ),
        ),
        (
            "member_0000000003",
            {
                "serviceEndpoint": {"host": "10.0.0.1", "port": 80},
                "additionalEndpoints": {},
                "status": "ALIVE",
            },
            Candidate("10.0.0.1", 80),
        ),
        (
            "member_0000000004",
            {"serviceEndpoint": {"host": "10.0.0.1", "port": 80}, "status": "DEAD"},
            Candidate("10.0.0.1", 80, 0),
        ),
        (
            "0",
            {"endpoints": ["PLAINTEXT://kafka:9092"], "host": "kafka", "port": 9092, "version": 5},
            Candidate("kafka", 9092),
        ),
    ],
)
def test_a_child_is_read(name: str, data: Any, expected: Candidate) -> None:
    raw = data if isinstance(data, str) else json.dumps(data)
    found = read_child(name, raw.encode())
    assert found == expected
    assert dict(found.metadata) == dict(expected.metadata)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("lock-0000000001", b""),
        ("x", b"hello"),
        ("x", b"\xff\xfe"),
        ("x", b"{"),
        ("x", b"[" * 100_000),
        ("x", b"[]"),
        ("x", b"{}"),
        ("x", json.dumps({**CURATOR, "address": None}).encode()),
        ("x", json.dumps({**CURATOR, "port": None}).encode()),
        ("x", b'{"serviceEndpoint": "10.0.0.1:80"}'),
        ("x", b'{"host": 5, "port": 80}'),
    ],
)
def test_what_makes_no_sense_is_refused_by_itself(name: str, data: bytes) -> None:
    assert read_child(name, data).port == -1


@given(
    st.text(max_size=30),
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(
            ["address", "port", "sslPort", "payload", "serviceEndpoint", "host", "enabled", "id"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
            lambda below: (
                st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=5,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_nothing_in_a_node_raises(name: str, data: bytes) -> None:
    found = read_child(name, data)
    assert isinstance(found.host, str)
    assert {type(text) for pair in found.metadata.items() for text in pair} <= {str}
