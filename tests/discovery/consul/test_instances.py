"""From Consul's entries to candidates: by tables, and for whatever JSON there is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.consul.instances import Instances, Standing, stand
from lbproxy.discovery.consul.options import ConsulOptions
from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.vetting import Refusal, vet

WEB = ConsulOptions(service="web")


def entry(
    *,
    node: dict[str, Any] | None = None,
    checks: list[Any] | None = None,
    **service: Any,
) -> dict[str, Any]:
    """As /v1/health/service tells an instance."""
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": None, **(node or {})},
        "Service": {
            "ID": "web-1",
            "Service": "web",
            "Tags": [],
            "Address": "",
            "Meta": None,
            "Port": 80,
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": checks if checks is not None else [check("passing")],
    }


def check(status: str, name: str = "tcp", notes: str = "") -> dict[str, Any]:
    return {"CheckID": name, "Name": f"Check {name}", "Status": status, "Notes": notes, "Output": "..."}


def candidates(*entries: Any, options: ConsulOptions = WEB) -> list[Candidate]:
    found = Instances(options)
    for each in entries:
        found.add(each)
    return list(found.candidates())


def one(given: Any, options: ConsulOptions = WEB) -> Candidate:
    (found,) = candidates(given, options=options)
    return found


NODE = {
    "Address": "10.0.0.1",
    "TaggedAddresses": {"lan": "10.0.0.1", "wan": "198.51.100.1", "wan_ipv6": "2001:db8::1"},
}
TAGGED = {"wan": {"Address": "203.0.113.9", "Port": 8080}, "lan_ipv4": {"Address": "10.9.9.9", "Port": 0}}


@pytest.mark.parametrize(
    ("address_from", "service", "where"),
    [
        ("service", {}, ("10.0.0.1", 80)),
        ("service", {"Address": "10.1.1.1"}, ("10.1.1.1", 80)),
        ("service", {"Address": "web.internal"}, ("web.internal", 80)),
        ("service", {"Address": "2001:db8::7", "Port": 443}, ("2001:db8::7", 443)),
        ("wan", {"TaggedAddresses": TAGGED}, ("203.0.113.9", 8080)),
        ("wan", {"Address": "10.1.1.1", "TaggedAddresses": TAGGED}, ("203.0.113.9", 8080)),
        ("lan_ipv4", {"TaggedAddresses": TAGGED}, ("10.9.9.9", 80)),
        ("wan", {}, ("198.51.100.1", 80)),
        ("wan_ipv6", {"TaggedAddresses": TAGGED}, ("2001:db8::1", 80)),
        ("wan", {"Address": "10.1.1.1"}, ("10.1.1.1", 80)),
        ("virtual", {}, ("10.0.0.1", 80)),
    ],
)
def test_the_address_is_the_services_else_the_nodes(
    address_from: str, service: dict[str, Any], where: tuple[str, int]
) -> None:
    found = one(entry(node=NODE, **service), ConsulOptions(service="web", address_from=address_from))
    assert (found.host, found.port) == where


WEIGHTS = {"Passing": 7, "Warning": 2}
MAINTENANCE = check("critical", "_service_maintenance:web-1", "disk swap")
NODE_MAINTENANCE = check("critical", "_node_maintenance")
LOST = check("critical", "serfHealth")


@pytest.mark.parametrize(
    ("checks", "weight", "status"),
    [
        ([], 7, ""),
        ([check("passing"), check("passing", "serfHealth")], 7, ""),
        ([check("passing"), check("warning")], 2, "warning: check Check tcp warns"),
        ([check("warning"), check("critical", "http")], 0, "critical: check Check http is critical"),
        ([check("passing"), MAINTENANCE], 0, "maintenance: disk swap"),
        ([check("critical"), MAINTENANCE, check("warning")], 0, "maintenance: disk swap"),
        ([NODE_MAINTENANCE], 0, "maintenance: maintenance mode"),
        ([check("unheard of")], 0, "critical: check Check tcp is unheard of"),
        (["nonsense"], 0, "critical: a check that nobody can read"),
        ([LOST, MAINTENANCE], None, ""),
        ([LOST, check("passing")], None, ""),
        ([check("warning", "serfHealth")], 2, "warning: check Check serfHealth warns"),
    ],
)
def test_checks_decide_over_the_weight_and_it_is_told_why(
    checks: list[Any], weight: int | None, status: str
) -> None:
    found = candidates(entry(Weights=WEIGHTS, checks=checks))
    assert [(each.weight, each.metadata.get("consul-status", "")) for each in found] == (
        [] if weight is None else [(weight, status)]
    )


@pytest.mark.parametrize(
    ("option", "checks", "weight"),
    [
        ({"critical": "remove"}, [check("critical")], None),
        ({"critical": "use"}, [check("critical")], 7),
        ({"critical": "use"}, [LOST], 7),
        ({"critical": "use"}, [check("critical"), MAINTENANCE], 0),
        ({"critical": "remove"}, [MAINTENANCE], 0),
        ({"warning": "drain"}, [check("warning")], 0),
        ({"warning": "remove"}, [check("warning")], None),
        ({"warning": "remove"}, [check("passing")], 7),
    ],
)
def test_what_is_unwell_is_treated_as_configured(
    option: dict[str, Any], checks: list[Any], weight: int | None
) -> None:
    found = candidates(entry(Weights=WEIGHTS, checks=checks), options=ConsulOptions(service="web", **option))
    assert [each.weight for each in found] == ([] if weight is None else [weight])


@pytest.mark.parametrize(
    ("service", "node", "seen"),
    [
        ({}, {}, (1, 0, None, None)),
        ({"Meta": {"lbproxy-zone": "a", "lbproxy-priority": "1"}}, {}, (1, 1, "a", None)),
        ({"Tags": ["x", "lbproxy-zone=a", "lbproxy-max-connections=9"]}, {}, (1, 0, "a", 9)),
        ({"Tags": ["lbproxy-weight=3"], "Meta": {"lbproxy-weight": "4"}}, {}, (4, 0, None, None)),
        ({"Tags": ["lbproxy-unknown=3", "lbproxy-weight"]}, {}, (1, 0, None, None)),
        ({}, {"Meta": {"lbproxy-zone": "n"}}, (1, 0, "n", None)),
        ({"Meta": {"lbproxy-zone": "a"}}, {"Meta": {"lbproxy-zone": "n"}}, (1, 0, "a", None)),
        ({"Locality": {"Region": "r", "Zone": "z"}}, {}, (1, 0, "z", None)),
        ({}, {"Locality": {"Region": "r", "Zone": "nz"}}, (1, 0, "nz", None)),
        ({"Weights": None}, {}, (1, 0, None, None)),
    ],
)
def test_metadata_and_tags_set_what_an_endpoint_has(
    service: dict[str, Any], node: dict[str, Any], seen: tuple[int, int, str | None, int | None]
) -> None:
    found = one(entry(node=node, **service))
    assert (found.weight, found.priority, found.zone, found.max_connections) == seen


def test_a_weight_of_ours_is_for_passing_alone() -> None:
    service: dict[str, Any] = {"Meta": {"lbproxy-weight": "40"}, "Weights": WEIGHTS}
    assert one(entry(**service)).weight == 40
    assert one(entry(**service, checks=[check("warning")])).weight == 2
    assert one(entry(**service, checks=[check("critical")])).weight == 0


def test_what_is_known_of_an_instance_becomes_its_metadata() -> None:
    found = one(entry(Meta={"version": "2", "lbproxy-zone": "a"}, Tags=["blue", "v2"]))
    assert found.metadata == {
        "version": "2",
        "consul-node": "n1",
        "consul-id": "web-1",
        "consul-tags": "blue,v2",
    }


def test_an_instance_with_much_to_say_is_not_refused_for_it() -> None:
    meta = {f"key-{number}": "x" * 512 for number in range(64)}
    checks = [check("critical", "_service_maintenance:web-1", "y" * 5000)]
    found = one(entry(Meta=meta, Tags=["z" * 255] * 100, checks=checks))
    assert not isinstance(vet(found), Refusal)
    assert len(found.metadata) == 64


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ("text", Refusal.PORT),
        ({}, Refusal.PORT),
        ({"Node": {}, "Service": []}, Refusal.PORT),
        (entry(Port="80"), Refusal.PORT),
        (entry(Port=0), Refusal.PORT),
        (entry(Port=True), Refusal.PORT),
        (entry(Port=70000), Refusal.PORT),
        (entry(Weights={"Passing": "many"}), Refusal.VALUE),
        (entry(Weights={"Passing": -5}), Refusal.VALUE),
        (entry(Weights={"Passing": 1e9}), Refusal.VALUE),
        (entry(Meta={"lbproxy-weight": "3.5"}), Refusal.VALUE),
        (entry(Meta={"lbproxy-priority": "-1"}), Refusal.VALUE),
        (entry(Meta={"lbproxy-max-connections": "lots"}), Refusal.VALUE),
        (entry(node={"Address": None}), Refusal.ADDRESS),
        (entry(Address="no host!"), Refusal.ADDRESS),
        (entry(Address="169.254.169.254"), None),  # judged by `undialable`, once it is an address
    ],
)
def test_an_entry_that_makes_no_sense_is_passed_on_to_be_refused(given: Any, refusal: Refusal | None) -> None:
    became = vet(one(given))
    assert (became if isinstance(became, Refusal) else None) == refusal


def test_one_bad_entry_costs_the_answer_only_itself() -> None:
    found = candidates(entry(ID="a", Port=1), 7, entry(ID="b", Port="x"), entry(ID="c", Port=3))
    assert sorted(each.port for each in found) == [-1, -1, 1, 3]


@pytest.mark.parametrize("turned", [False, True])
def test_two_ids_on_one_address_are_one_endpoint_and_the_better_one_stands(turned: bool) -> None:
    pairs = [
        (entry(ID="dead", checks=[check("critical")]), entry(ID="new")),
        (entry(ID="z-old", Meta={"lbproxy-max-connections": "x"}), entry(ID="new")),
        (entry(ID="swap", checks=[MAINTENANCE]), entry(ID="new")),
        (entry(ID="z-same"), entry(ID="new")),
    ]
    for pair in pairs:
        found = candidates(*(reversed(pair) if turned else pair))
        sound = [each for each in found if not isinstance(vet(each), Refusal)]
        assert [each.metadata["consul-id"] for each in sound] == ["new"]


def test_one_id_on_two_nodes_are_two_endpoints() -> None:
    found = candidates(entry(), entry(node={"Node": "n2", "Address": "10.0.0.2"}))
    assert [each.host for each in found] == ["10.0.0.1", "10.0.0.2"]


def test_the_order_is_consuls_own_only_where_it_was_asked_for() -> None:
    entries = [entry(ID=f"web-{port}", Port=port) for port in (3, 1, 2)]
    assert [each.port for each in candidates(*entries)] == [1, 2, 3]
    near = ConsulOptions(service="web", near="_agent")
    assert [each.port for each in candidates(*entries, options=near)] == [3, 1, 2]


def test_what_has_not_changed_is_the_same_object_again() -> None:
    first = Instances(WEB)
    for port in (1, 2, 3):
        first.add(entry(ID=f"web-{port}", Port=port))
    second = Instances(WEB, first.known)
    for port in (1, 2, 3):
        second.add(entry(ID=f"web-{port}", Port=port, Weights={"Passing": 2 if port == 2 else 1}))
    same = [one is other for one, other in zip(first.candidates(), second.candidates(), strict=True)]
    assert same == [True, False, True]


def test_no_checks_at_all_are_passing() -> None:
    assert stand([]) == Standing("passing")
    assert one({**entry(), "Checks": None}).weight == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["Node", "Service", "Checks", "ID", "Port", "Address", "Meta", "Tags", "Weights", "TaggedAddresses"]
)
NEARLY = st.recursive(JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=6), max_leaves=20)


@given(st.lists(NEARLY, max_size=5), st.sampled_from(["service", "wan"]))
def test_whatever_is_said_becomes_candidates_that_can_be_vetted(said: list[Any], address_from: str) -> None:
    for found in candidates(*said, options=ConsulOptions(service="web", address_from=address_from)):
        vet(found)


INSTANCES = st.lists(
    st.builds(
        lambda node, number, port, status: entry(
            node={"Node": f"n{node}", "Address": f"10.0.0.{node}"},
            ID=f"web-{number}",
            Port=port,
            checks=[check(status)],
        ),
        st.integers(1, 3),
        st.integers(1, 4),
        st.integers(79, 82),
        st.sampled_from(["passing", "warning", "critical"]),
    ),
    max_size=12,
    unique_by=lambda each: (each["Node"]["Node"], each["Service"]["ID"]),
)


@given(INSTANCES, st.randoms(use_true_random=False))
def test_the_order_of_an_answer_changes_nothing(instances: list[Any], rng: random.Random) -> None:
    shuffled = rng.sample(instances, len(instances))
    found = candidates(*instances)
    assert candidates(*shuffled) == found
    assert len({(each.host, each.port) for each in found}) == len(found)
    assert {(each.host, each.port) for each in found} == {
        (each["Node"]["Address"], each["Service"]["Port"]) for each in instances
    }
