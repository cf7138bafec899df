"""Values of keys become endpoints, and keys a list of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.etcd.keys import Keys, decode, encode, number, prefix_end
from lbproxy.discovery.etcd.values import MOST_BYTES, read_value
from lbproxy.discovery.vetting import Refusal, vet
from lbproxy.domain.errors import RegistryError

PREFIX = b"/web/"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.1:80", Candidate("10.0.0.1", 80)),
        (" [fd00::1]:80\n", Candidate("fd00::1", 80)),
        ("web.internal:80", Candidate("web.internal", 80)),
        ('{"address": "10.0.0.1:80"}', Candidate("10.0.0.1", 80)),
        (
            '{"address": "10.0.0.1:80", "weight": 3, "zone": "a", "priority": 1, "max_connections": 9, "more": {}}',
            Candidate("10.0.0.1", 80, 3, 1, "a", 9),
        ),
        ('{"address": "10.0.0.1:80", "metadata": {"v": 2}}', Candidate("10.0.0.1", 80, metadata={"v": "2"})),
        ('{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}', Candidate("10.0.0.1", 80)),
        ('{"Addr":"10.0.0.1:80"}', Candidate("10.0.0.1", 80)),
        ('{"Op":0,"Addr":"10.0.0.1:80","Metadata":"text"}', Candidate("10.0.0.1", 80)),
        (
            '{"Addr":"10.0.0.1:80","Metadata":{"weight":"5","zone":"b","nested":{},"on":true}}',
            Candidate("10.0.0.1", 80, 5, zone="b", metadata={"weight": "5", "zone": "b", "on": "true"}),
        ),
        ('{"Op":1,"Addr":"10.0.0.1:80"}', None),
    ],
)
def test_a_value_is_an_endpoint(value: str, expected: Candidate | None) -> None:
    found = read_value(b"/web/a", value.encode())
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert found.metadata == {**expected.metadata, "etcd-key": "/web/a"}
    assert found == Candidate(
        *(expected.host, expected.port, expected.weight, expected.priority, expected.zone),
        expected.max_connections,
        found.metadata,
    )


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (b"", Refusal.PORT),
        (b"10.0.0.1", Refusal.PORT),
        (b"\xff\xfe:80", Refusal.PORT),
        (b"{", Refusal.PORT),
        (b"{}", Refusal.PORT),
        (b"[]", Refusal.PORT),
        (b'{"Addr": 7}', Refusal.PORT),
        (b'{"Addr": "10.0.0.1"}', Refusal.PORT),
        (b'{"address": 7}', Refusal.PORT),
        (b'{"a":' * 100_000, Refusal.PORT),
        (b'{"a":' * 5000, Refusal.PORT),
        (b'{"address": "10.0.0.1:80", "weight": -3}', Refusal.VALUE),
        (b'{"address": "10.0.0.1:0"}', Refusal.PORT),
        (b'{"address": "10.0.0.1:80", "x": "' + b"x" * MOST_BYTES + b'"}', Refusal.PORT),
        (b"unix:/run/x:80", Refusal.PORT),
    ],
)
def test_a_value_that_nobody_can_read_is_one_refused_entry(value: bytes, refusal: Refusal) -> None:
    found = read_value(b"/web/a", value)
    assert found is not None
    assert vet(found) is refusal


@given(st.binary(max_size=60) | st.from_regex(rb'\{"(Addr|address|Op|Metadata)": ?[^}]{0,30}\}?'))
def test_any_value_gives_an_entry(value: bytes) -> None:
    found = read_value(b"/web/\xff", value)
    assert found is None or vet(found) is not None


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_the_range_holds_exactly_what_begins_with_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    within = key >= prefix and (
        end == b"\0" or key < end
    )  # etcd: an end of one NUL byte is the end of everything
    assert within == (key.startswith(prefix) or (end == b"\0" and key > prefix))
    assert decode(encode(prefix)) == prefix


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 0), ({"n": "12"}, 12), ({"n": 12}, 12), ({"n": str(2**64 - 1)}, 2**64 - 1)]
)
def test_numbers_come_as_text(given: dict[str, Any], expected: int) -> None:
    assert number(given, "n") == expected


@pytest.mark.parametrize("given", [None, True, 1.5, "", "-", "x", "1" * 21, [], "\u0661"])
def test_what_is_no_number_is_an_error(given: object) -> None:
    with pytest.raises(RegistryError):
        number({"n": given}, "n")


@pytest.mark.parametrize("given", ["!", "YQ", 5, [], "é"])
def test_what_is_no_base64_is_an_error(given: object) -> None:
    with pytest.raises(RegistryError):
        decode(given)


def pair(key: bytes, value: bytes = b"") -> dict[str, str]:
    found = {"key": base64.b64encode(key).decode()}
    return {**found, "value": base64.b64encode(value).decode()} if value else found


@pytest.mark.parametrize(
    "events",
    [
        [None],
        [{}],
        [{"kv": 5}],
        [{"type": "DELETE"}],
        [{"type": "MOVE", "kv": pair(b"/web/a")}],
        [{"kv": pair(b"/elsewhere/a", b"10.0.0.1:80")}],
        [{"type": "DELETE", "kv": pair(b"/elsewhere/a")}],
    ],
)
def test_events_that_are_none_are_an_error(events: list[Any]) -> None:
    with pytest.raises(RegistryError):
        Keys(PREFIX).apply(events)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 65535)), max_size=40), st.integers(1, 5)
)
def test_after_any_events_there_is_what_was_put_last(
    changes: list[tuple[int, int | None]], size: int
) -> None:
    keys, there = Keys(PREFIX), dict[int, int]()
    for at in range(0, len(changes), size):
        events: list[dict[str, Any]] = []
        for key, port in changes[at : at + size]:
            name = PREFIX + str(key).encode()
            if port is None:
                there.pop(key, None)
                events.append({"type": "DELETE", "kv": pair(name)})
            else:
                there[key] = port
                value = json.dumps({"address": f"10.0.0.1:{port}"}).encode()
                events.append({"kv": pair(name, value)})
        keys.apply(events)
        assert [each.port for each in keys.candidates] == [there[key] for key in sorted(there)]
        assert len(keys) == len(there)
