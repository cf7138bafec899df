"""From records to candidates: tiers, weights, targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.dns.candidates import SMALL_SHARE, is_absent, of_addresses, of_services
from lbproxy.domain.membership import MAX_WEIGHT
from lbproxy.wire.records import Service

HOSTS = {"a.test": ("10.0.0.1",), "b.test": ("10.0.0.2",), "c.test": ("10.0.0.3", "10.0.0.4")}


def service(priority: int, weight: int, target: str = "a.test", port: int = 80) -> Service:
    return Service(priority, weight, port, target)


def test_every_address_is_a_candidate_with_the_port() -> None:
    found = of_addresses(["10.0.0.1", "2001:db8::1"], 8080)
    assert [(each.host, each.port, each.weight) for each in found] == [
        ("10.0.0.1", 8080, 1),
        ("2001:db8::1", 8080, 1),
    ]


@pytest.mark.parametrize(
    ("priorities", "tiers"),
    [([0], [0]), ([65535], [0]), ([10, 20], [0, 1]), ([5, 5, 7, 65535], [0, 0, 1, 2])],
)
def test_priorities_become_tiers_in_their_order(priorities: list[int], tiers: list[int]) -> None:
    found = of_services(tuple(service(each, 1) for each in priorities), HOSTS)
    assert [each.priority for each in found] == tiers


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([0, 0], [1, 1]),
        ([0, 1], [1, 100]),
        ([0, 5, 10], [1, 500, 1000]),
        ([0, 1000], [1, 65000]),
        ([0, 65535], [1, 65535]),
        ([65535, 1], [65535, 1]),
    ],
)
def test_a_weight_of_0_is_a_small_share_and_never_no_sessions(
    weights: list[int], expected: list[int]
) -> None:
    found = of_services(tuple(service(0, each) for each in weights), HOSTS)
    assert [each.weight for each in found] == expected


def test_a_weight_counts_within_its_priority() -> None:
    found = of_services((service(0, 0), service(0, 0), service(1, 3), service(2, 0), service(2, 1)), HOSTS)
    assert [each.weight for each in found] == [1, 1, 3, 1, 100]


def test_a_target_stands_for_all_of_its_addresses() -> None:
    found = of_services((service(0, 2, "c.test", 81), service(0, 1, "b.test")), HOSTS)
    assert [(each.host, each.port, each.weight) for each in found] == [
        ("10.0.0.3", 81, 2),
        ("10.0.0.4", 81, 2),
        ("10.0.0.2", 80, 1),
    ]
    assert [each.metadata["target"] for each in found] == ["c.test", "c.test", "b.test"]


def test_a_root_target_alone_says_that_there_is_no_service() -> None:
    assert is_absent((service(0, 0, "."),))
    assert not is_absent(())
    assert not is_absent((service(0, 0, "."), service(0, 0)))
    assert not is_absent((service(0, 0),))


def test_a_root_target_beside_others_is_passed_on_to_be_refused() -> None:
    assert [each.host for each in of_services((service(0, 1), service(0, 1, ".", 9)), HOSTS)] == [
        "10.0.0.1",
        ".",
    ]


RECORDS = st.lists(
    st.builds(
        Service,
        st.sampled_from([0, 1, 10, 65535]),
        st.integers(0, 65535) | st.integers(0, 3),
        st.integers(0, 65535),
        st.sampled_from(sorted(HOSTS)),
    ),
    max_size=20,
)


@given(RECORDS)
def test_no_record_is_lost_and_the_order_of_weights_and_priorities_stays(records: list[Service]) -> None:
    found = of_services(tuple(records), HOSTS)
    assert len(found) == sum(len(HOSTS[each.target]) for each in records)
    of = [record for record in records for _ in HOSTS[record.target]]
    for one, mine in zip(of, found, strict=True):
        assert 1 <= mine.weight <= MAX_WEIGHT
        assert (mine.port, mine.metadata["target"]) == (one.port, one.target)
        for two, other in zip(of, found, strict=True):
            assert (one.priority < two.priority) == (mine.priority < other.priority)
            if one.priority == two.priority and one.weight < two.weight:
                assert mine.weight < other.weight or (one.weight, two.weight) == (0, 1)
                if one.weight == 0:
                    least = min(SMALL_SHARE, max(each.weight for each in of if each.priority == one.priority))
                    greatest = max(
                        each.weight
                        for each, source in zip(found, of, strict=True)
                        if source.priority == one.priority
                    )
                    assert greatest >= least * mine.weight
