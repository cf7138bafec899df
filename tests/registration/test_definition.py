"""What Consul is told about a service."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from lbproxy.domain.address import Address, ip_address, unix_address
from lbproxy.registration.definition import MAX_OUTPUT, Verdict, define, judge
from lbproxy.registration.options import CheckOptions, ServiceOptions

OWN = ip_address("10.0.0.5", 8080)
EVERY = ip_address("0.0.0.0", 8080)
EVERY_6 = ip_address("::", 8080)
UNIX = unix_address("/run/web.sock")


@pytest.mark.parametrize(
    ("options", "bound", "expected"),
    [
        ({}, [OWN], ("web-10.0.0.5-8080", "10.0.0.5", 8080)),
        ({}, [UNIX, OWN], ("web-10.0.0.5-8080", "10.0.0.5", 8080)),
        ({}, [EVERY], ("web-8080", "", 8080)),
        ({}, [EVERY_6, OWN], ("web-8080", "", 8080)),
        ({}, [ip_address("2001:db8::5", 80)], ("web-2001:db8::5-80", "2001:db8::5", 80)),
        ({}, [Address("fe80::1%eth0", 80, "inet6")], ("web-fe80::1-80", "fe80::1", 80)),
        ({"address": "192.0.2.1"}, [EVERY], ("web-192.0.2.1-8080", "192.0.2.1", 8080)),
        ({"address": "192.0.2.1", "port": 443}, [EVERY], ("web-192.0.2.1-443", "192.0.2.1", 443)),
        ({"port": 443}, [OWN], ("web-10.0.0.5-443", "10.0.0.5", 443)),
        ({"listener": None, "port": 443}, [], ("web-443", "", 443)),
        ({"id": "mine"}, [OWN], ("mine", "10.0.0.5", 8080)),
        ({}, [UNIX], None),
        ({}, [], None),
    ],
)
def test_id_address_and_port_come_from_the_listener_unless_named(
    options: dict[str, Any], bound: list[Address], expected: tuple[str, str, int] | None
) -> None:
    found = define(ServiceOptions("web", **{"listener": "web", **options}), bound)
    assert (None if found is None else (found.id, found.address, found.port)) == expected


def test_the_id_does_not_change_when_something_else_does() -> None:
    one = define(ServiceOptions("web", tags=("a",)), [OWN])
    other = define(ServiceOptions("web", tags=("b",), passing_weight=7), [OWN])
    assert one is not None
    assert other is not None
    assert one.id == other.id
    assert one != other


def test_the_payload_is_what_the_agent_takes() -> None:
    options = ServiceOptions(
        "web",
        listener="web",
        tags=("a", "b"),
        meta=MappingProxyType({"zone": "eu"}),
        passing_weight=3,
        warning_weight=0,
        check=CheckOptions(1.5, 90.0),
    )
    defined = define(options, [OWN])
    assert defined is not None
    assert defined.payload(Verdict("warning", "")) == {
        "ID": "web-10.0.0.5-8080",
        "Name": "web",
        "Address": "10.0.0.5",
        "Port": 8080,
        "Tags": ["a", "b"],
        "Meta": {"zone": "eu"},
        "Weights": {"Passing": 3, "Warning": 0},
        "Check": {
            "CheckID": "service:web-10.0.0.5-8080",
            "Name": "lbproxy readiness",
            "TTL": "1500ms",
            "Status": "warning",
            "DeregisterCriticalServiceAfter": "90000ms",
        },
    }


def test_what_is_left_to_the_agent_is_left_out() -> None:
    defined = define(ServiceOptions("web", check=CheckOptions(deregister_critical_after_s=None)), [EVERY])
    assert defined is not None
    payload = defined.payload(Verdict("passing", ""))
    assert "Address" not in payload
    assert "DeregisterCriticalServiceAfter" not in payload["Check"]


@pytest.mark.parametrize(
    ("reasons", "warnings", "on_warning", "expected"),
    [
        ([], [], "pass", Verdict("passing", "ready")),
        ([], ["a", "b"], "pass", Verdict("passing", "ready; a; b")),
        ([], ["a"], "warn", Verdict("warning", "ready; a")),
        (["x", "y"], ["a"], "pass", Verdict("critical", "x; y")),
        (["x"], ["a"], "warn", Verdict("critical", "x")),
    ],
)
def test_the_check_says_what_readiness_says(
    reasons: list[str], warnings: list[str], on_warning: Any, expected: Verdict
) -> None:
    options = ServiceOptions("web", check=CheckOptions(on_warning=on_warning))
    assert judge(options, reasons, warnings) == expected


def test_the_output_is_bounded() -> None:
    verdict = judge(ServiceOptions("web"), ["upstream is gone"] * 1000, [])
    assert len(verdict.output) == MAX_OUTPUT
    assert verdict.output.endswith("...")
