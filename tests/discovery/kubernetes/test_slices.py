"""EndpointSlices become endpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.kubernetes.options import Family
from lbproxy.discovery.kubernetes.slices import Slices
from lbproxy.discovery.vetting import Refusal, vet
from lbproxy.domain.errors import RegistryError
from tests.discovery.kubernetes.api_server import endpoint, slice_of

Json = dict[str, Any]


def candidates(*told: Json, port: str | int | None = None, family: Family = "auto") -> tuple[Candidate, ...]:
    slices = Slices(port, family)
    for each in told:
        slices.put(each)
    return slices.candidates


def weights(*told: Json) -> dict[str, int]:
    return {candidate.host: candidate.weight for candidate in candidates(*told)}


def conditions(ready: object = None, serving: object = None, terminating: object = None) -> Json:
    return {"conditions": {"ready": ready, "serving": serving, "terminating": terminating}}


@pytest.mark.parametrize(
    ("told", "weight"),
    [
        (conditions(True, True, False), 1),
        (conditions(), 1),  # nothing said means ready
        ({"conditions": {}}, 1),
        ({"conditions": None}, 1),
        (conditions(True, True, True), 1),  # publishNotReadyAddresses
        (conditions(False, True, True), 0),
        (conditions(False, False, False), None),
        (conditions(False, True, False), None),
        (conditions(False, None, None), None),
        (conditions(False, False, True), None),
        (conditions(False, None, True), None),
    ],
)
def test_the_conditions_decide_beside_one_that_is_ready(told: Json, weight: int | None) -> None:
    found = weights(slice_of("a", endpoint("10.0.0.1", **told), "10.0.0.2"))
    assert found.get("10.0.0.1") == weight
    assert found["10.0.0.2"] == 1


def test_if_none_is_ready_those_that_still_serve_are_used() -> None:
    leaving = endpoint("10.0.0.1", **conditions(False, True, True))
    broken = endpoint("10.0.0.2", **conditions(False, False, False))
    gone = endpoint("10.0.0.3", **conditions(False, False, True))
    assert weights(slice_of("a", leaving, broken, gone)) == {"10.0.0.1": 1}


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_one_that_stands_in_two_slices_counts_as_what_is_more_usable(order: tuple[str, str]) -> None:
    slices = {
        "a": slice_of("a", endpoint("10.0.0.1", **conditions(False, True, True)), "10.0.0.2"),
        "b": slice_of("b", "10.0.0.1"),
    }
    assert weights(*(slices[name] for name in order)) == {"10.0.0.1": 1, "10.0.0.2": 1}


def test_a_later_slice_of_the_same_name_is_not_deleted_with_the_earlier_one() -> None:
    slices = Slices(None, "auto")
    first = slice_of("a", "10.0.0.1")
    slices.put(first)
    later = slice_of("a", "10.0.0.2")
    later["metadata"]["uid"] = "another"
    slices.put(later)
    slices.delete(first)
    assert [each.host for each in slices.candidates] == ["10.0.0.2"]
    slices.delete(later)
    slices.delete(later)
    assert slices.candidates == ()


def ports(*told: tuple[str | None, int], protocol: str | None = "TCP") -> list[Json]:
    return [{"name": name, "port": number, "protocol": protocol} for name, number in told]


HTTP_AND_METRICS = ports(("http", 8080), ("metrics", 9090))


@pytest.mark.parametrize(
    ("told", "asked", "number"),
    [
        (ports(("http", 8080)), None, 8080),
        (ports((None, 8080)), None, 8080),
        (ports(("", 8080), protocol=None), None, 8080),  # nothing said means TCP
        (HTTP_AND_METRICS, "metrics", 9090),
        (HTTP_AND_METRICS, 9090, 9090),
        (None, 7000, 7000),  # no ports: all of them
        ([*ports(("dns", 53), protocol="UDP"), *ports(("http", 8080))], None, 8080),
        ([*ports(("dns", 53), protocol="UDP"), *ports(("dns", 5353))], "dns", 5353),
    ],
)
def test_the_port_is_the_endpoints_own(told: list[Json] | None, asked: str | int | None, number: int) -> None:
    (found,) = candidates(slice_of("a", "10.0.0.1", ports=told), port=asked)
    assert found.port == number


@pytest.mark.parametrize(
    ("told", "asked", "said"),
    [
        (HTTP_AND_METRICS, None, "not one TCP port, but: http, metrics"),
        (HTTP_AND_METRICS, "htp", "no TCP port 'htp', but: http, metrics"),
        (HTTP_AND_METRICS, 80, "no TCP port 80, but: http, metrics"),
        (ports(("dns", 53), protocol="UDP"), None, "but: none"),
        (None, "http", "no TCP port 'http'"),
        ([], None, "but: none"),
    ],
)
def test_a_port_that_is_not_there_is_an_error(
    told: list[Json] | None, asked: str | int | None, said: str
) -> None:
    with pytest.raises(RegistryError, match=said):
        assert candidates(slice_of("a", "10.0.0.1", ports=told), port=asked) is None


def test_a_named_port_may_have_another_number_in_each_slice() -> None:
    one = slice_of("a", "10.0.0.1", ports=ports(("", 8080)))
    other = slice_of("b", "10.0.0.2", ports=ports(("", 8081)))
    assert [each.port for each in candidates(one, other)] == [8080, 8081]


def test_endpoints_without_the_port_are_none_of_it() -> None:
    one = slice_of("a", "10.0.0.1", ports=HTTP_AND_METRICS)
    other = slice_of("b", "10.0.0.2", ports=ports(("http", 8080)))
    assert [each.host for each in candidates(one, other, port="metrics")] == ["10.0.0.1"]
    with pytest.raises(RegistryError, match="say which"):
        candidates(one, other)


def test_a_service_scaled_to_nothing_is_empty_whatever_the_port() -> None:
    empty: tuple[list[Json] | None, ...] = (None, [])
    for told in empty:
        assert candidates(slice_of("a", ports=told), port="http") == ()
        assert candidates(slice_of("a", ports=told, endpoints=None)) == ()


V4 = slice_of("a", "10.0.0.1")
V6 = slice_of("b", "fd00::1", addressType="IPv6")


@pytest.mark.parametrize(
    ("told", "family", "found"),
    [
        ((V4, V6), "auto", ["10.0.0.1"]),
        ((V6,), "auto", ["fd00::1"]),
        ((slice_of("a"), V6), "auto", ["fd00::1"]),
        ((V4, V6), "ipv6", ["fd00::1"]),
        ((V4, V6), "ipv4", ["10.0.0.1"]),
        ((V4,), "ipv6", []),
    ],
)
def test_of_two_families_one_is_meant(told: tuple[Json, ...], family: Family, found: list[str]) -> None:
    assert [each.host for each in candidates(*told, family=family)] == found


@pytest.mark.parametrize(
    ("told", "refusal"),
    [
        (slice_of("a", "web.example", addressType="FQDN"), Refusal.ADDRESS),
        (slice_of("a", endpoint("10.0.0.1", addresses=[])), Refusal.ADDRESS),
        (slice_of("a", endpoint("10.0.0.1", addresses=None)), Refusal.ADDRESS),
        (slice_of("a", endpoint("10.0.0.1", addresses=[17])), Refusal.ADDRESS),
        (slice_of("a", ports=ports(("http", 8080)), endpoints=["10.0.0.1", 5]), Refusal.ADDRESS),
        (slice_of("a", "10.0.0.1", ports=[{"name": "http", "port": None}]), Refusal.PORT),
        (slice_of("a", "10.0.0.1", ports=[{"name": "http", "port": "8080"}]), Refusal.PORT),
    ],
)
def test_what_cannot_be_dialled_is_refused_by_itself(told: Json, refusal: Refusal) -> None:
    told = copy.deepcopy(told)
    told["endpoints"] = [{"addresses": [None]} if each == 5 else each for each in told["endpoints"]]
    found = [vet(each) for each in candidates(told)]
    assert refusal in found
    assert all(isinstance(each, Refusal) or told["addressType"] == "IPv4" for each in found)


def test_only_the_first_of_several_addresses_counts() -> None:
    assert [
        each.host for each in candidates(slice_of("a", endpoint("x", addresses=["10.0.0.1", "10.0.0.2"])))
    ] == ["10.0.0.1"]


NAMES = [
    "metadata",
    "name",
    "uid",
    "addressType",
    "ports",
    "port",
    "protocol",
    "endpoints",
    "addresses",
    "conditions",
    "ready",
    "serving",
    "terminating",
    "zone",
    "nodeName",
    "targetRef",
    "kind",
]
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.sampled_from(["", "TCP", "IPv4", "http", "10.0.0.1", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@given(ANY, ANY, ANY)
def test_whatever_is_told_is_endpoints_or_an_error(whole: Any, some_ports: Any, some_endpoints: Any) -> None:
    for told in (whole, slice_of("a", ports=some_ports), slice_of("a", endpoints=some_endpoints)):
        try:
            found = candidates(told)
        except RegistryError:
            continue
        assert None not in [vet(each) for each in found]
