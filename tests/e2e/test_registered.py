"""The program in a real Consul: found while it is well, gone before it closes, back when the agent has forgotten it."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, listen
from tests.e2e.program import Program, config, lbproxy
from tests.patience import WITHIN_S
from tests.servers.consul import Consul

TTL_S = 2.0
SOON_S = 20.0  # the bounds themselves are kept on virtual time (tests/registration/test_machine.py)


@pytest.fixture
def endpoint() -> Iterator[int]:
    """The port of somebody who listens."""
    listening, port = listen()
    with listening:
        yield port


def registered(consul: Consul, *, name: str = "web", more: str = "", agent: str = "") -> str:
    """A `registration` section, and a short time-out for what sessions are left."""
    return (
        "runtime: {drain_timeout: 1s, drain_delay: 0s, allow_literal_secrets: true}\n"
        f"registration: {{address: '{consul.address}'{agent}, services: "
        f"[{{name: {name}, listener: in, check: {{ttl: {TTL_S:g}s}}{more}}}]}}\n"
    )


def entries(consul: Consul, service: str = "web") -> list[Any]:
    return list(consul.ask("GET", f"/v1/health/service/{service}"))


def check(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Status and output of the service's own check."""
    (found,) = (each for each in entry["Checks"] if each["ServiceID"])
    return found["Status"], found["Output"]


def says(consul: Consul, status: str, output: str = "") -> bool:
    found = entries(consul)
    if len(found) != 1:
        return False
    return check(found[0])[0] == status and output in check(found[0])[1]


def told(consul: Consul) -> list[tuple[str, str]]:
    """Status and output at the agent: a change of nothing but words reaches the catalog minutes later (check_update_interval)."""
    checks = consul.ask("GET", "/v1/agent/checks").values()
    return [(each["Status"], each["Output"]) for each in checks if each["ServiceID"]]


def first_registration(lb: Program) -> dict[str, Any]:
    return dict(lb.get("/api/v1/registrations")["items"][0])


def test_it_is_registered_where_it_listens_and_passes(consul: Consul, start: Start, endpoint: int) -> None:
    more = ", tags: [edge], meta: {zone: eu}, weights: {passing: 7, warning: 2}"
    lb = start(config([endpoint], more=registered(consul, more=more)))
    lb.until(lambda: says(consul, "passing") and told(consul) == [("passing", "ready")])
    (entry,) = entries(consul)
    port = lb.address()[1]
    assert entry["Service"]["ID"] == f"web-127.0.0.1-{port}"
    assert (entry["Service"]["Address"], entry["Service"]["Port"]) == ("127.0.0.1", port)
    assert (entry["Service"]["Tags"], entry["Service"]["Meta"]) == (["edge"], {"zone": "eu"})
    assert entry["Service"]["Weights"] == {"Passing": 7, "Warning": 2}
    shown = first_registration(lb)
    assert (shown["state"], shown["status"], shown["failures"]) == ("registered", "passing", 0)
    assert lb.total("lbproxy_registration_registered", service="web") == 1


def test_bound_to_every_address_it_is_where_its_node_is(consul: Consul, start: Start, endpoint: int) -> None:
    lb = start(config([endpoint], bind="0.0.0.0:0", more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    (entry,) = entries(consul)
    assert entry["Service"]["Address"] == ""
    assert entry["Service"]["ID"] == f"web-{lb.address()[1]}"
    assert entry["Node"]["Address"] == "127.0.0.1"


def test_the_check_is_critical_while_no_endpoint_is_usable(
    consul: Consul, start: Start, endpoint: int
) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    lb.order("up", endpoint, "drain")
    lb.until(lambda: says(consul, "critical", "upstream up has no usable endpoint"))
    assert lb.ask("GET", "/readyz")[0] == 503
    lb.order("up", endpoint, "undrain")
    lb.until(lambda: says(consul, "passing"))


@pytest.mark.parametrize(("on_warning", "status"), [("pass", "passing"), ("warn", "warning")])
def test_a_warning_of_readiness_is_told_as_configured(
    consul: Consul, start: Start, endpoint: int, on_warning: str, status: str
) -> None:
    check = f", check: {{ttl: 2s, on_warning: {on_warning}}}"
    section = registered(consul).replace(", check: {ttl: 2s}", check)
    text = config([endpoint], more=section)
    text = text.replace("upstreams: {", "upstreams: {spare: {endpoints: ['127.0.0.1:9']}, ")
    lb = start(text.replace("listeners: {", "listeners: {two: {bind: '127.0.0.1:0', upstream: spare}, "))
    lb.until(lambda: told(consul) == [("passing", "ready")])
    lb.order("spare", 9, "drain")
    lb.until(lambda: told(consul) == [(status, "ready; upstream spare has no usable endpoint")])
    lb.until(lambda: says(consul, status))


def test_a_sidecar_s_service_looks_at_its_own_upstream_alone(
    consul: Consul, start: Start, endpoint: int
) -> None:
    text = config([endpoint], more=registered(consul, more=", ready_when: upstream"))
    text = text.replace("upstreams: {", "upstreams: {other: {endpoints: ['127.0.0.1:9']}, ")
    lb = start(text.replace("listeners: {", "listeners: {out: {bind: '127.0.0.1:0', upstream: other}, "))
    lb.until(lambda: says(consul, "passing"))
    lb.order("up", endpoint, "drain")
    lb.until(lambda: says(consul, "critical", "upstream up has no usable endpoint"))
    assert lb.ready()


def test_it_leaves_before_the_drain_delay_and_serves_through_it(
    consul: Consul, start: Start, endpoint: int
) -> None:
    section = registered(consul).replace("drain_delay: 0s", "drain_delay: 5s")
    lb = start(config([endpoint], more=section))
    lb.until(lambda: says(consul, "passing"))
    address = lb.address()
    lb.signal(signal.SIGTERM)
    lb.until(lambda: entries(consul) == [])
    with connect(address) as client:  # those who have not yet looked are still served
        client.settimeout(WITHIN_S)
        client.sendall(b"x")
        assert lb.active() == 1
    assert lb.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=WITHIN_S)
    said = [line.get("message", "") for line in lb.lines()]
    order = [message for message in said if "deregistered" in message or "drain" in message]
    assert [message.partition(":")[0] for message in order[:2]] == [
        "draining",
        f"registration web-127.0.0.1-{address[1]}",
    ]


def test_an_agent_that_was_restarted_empty_has_it_back_within_a_ttl(
    consul: Consul, start: Start, endpoint: int
) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    consul.kill()
    lb.until(lambda: first_registration(lb)["error"] != "")
    consul.start()
    consul.wait_for_leader()
    lb.until(lambda: says(consul, "passing"), within_s=SOON_S)
    assert lb.said("forgotten by the agent")
    assert lb.total("lbproxy_registration_failures_total", service="web") > 0


def test_a_registration_that_somebody_took_away_comes_back(
    consul: Consul, start: Start, endpoint: int
) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    consul.deregister(entries(consul)[0]["Service"]["ID"])
    lb.until(lambda: says(consul, "passing"), within_s=SOON_S)


def test_without_an_agent_it_starts_serves_and_stops_in_time(
    consul: Consul, start: Start, endpoint: int
) -> None:
    consul.kill()
    lb = start(config([endpoint], more=registered(consul)))
    with connect(lb.address()) as client:
        client.sendall(b"x")
        lb.until(lambda: lb.active() == 1)
    lb.until(lambda: first_registration(lb)["state"] == "absent" and first_registration(lb)["error"])
    assert lb.ready()
    lb.signal(signal.SIGTERM)
    assert lb.wait(within_s=20.0) == 0


def test_a_stopped_agent_delays_the_end_by_a_bounded_time(
    consul: Consul, start: Start, endpoint: int
) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    consul.signal(signal.SIGSTOP)
    lb.signal(signal.SIGTERM)
    assert lb.wait(within_s=20.0) == 0
    assert lb.said("not yet deregistered")
    consul.signal(signal.SIGCONT)
    lb_entries = entries(consul)
    # What could not be told: the check runs out by itself.
    assert len(lb_entries) in {0, 1}


def test_a_second_signal_does_not_wait_for_the_agent(consul: Consul, start: Start, endpoint: int) -> None:
    took: list[float] = []
    while not took or min(took) > 1.5:  # who waits takes two seconds; a busy machine may be late now and then
        assert len(took) < 10, took
        lb = start(config([endpoint], more=registered(consul)))
        lb.until(lambda: first_registration(lb)["state"] == "registered")  # noqa: B023  asked at once
        consul.signal(signal.SIGSTOP)
        lb.signal(signal.SIGTERM)
        lb.until(lambda: lb.said("draining"))  # noqa: B023
        began = time.monotonic()
        lb.signal(signal.SIGTERM)
        assert lb.wait() == 0
        took.append(time.monotonic() - began)
        consul.signal(signal.SIGCONT)


def test_a_reload_registers_what_is_new_and_takes_back_what_is_not(
    consul: Consul, start: Start, endpoint: int
) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    lb.write(config([endpoint], more=registered(consul, more=", tags: [new]")))
    assert "registration: changed" in lb.post("/api/v1/reload")["changes"]
    lb.until(lambda: entries(consul)[0]["Service"]["Tags"] == ["new"])
    assert says(consul, "passing")
    lb.write(config([endpoint], more=registered(consul, name="other")))
    lb.post("/api/v1/reload")
    lb.until(lambda: entries(consul) == [] and len(entries(consul, "other")) == 1)
    lb.write(config([endpoint]))
    lb.post("/api/v1/reload")
    lb.until(lambda: entries(consul, "other") == [])
    assert lb.get("/api/v1/registrations")["items"] == []


def test_the_least_token_suffices_and_a_lesser_one_is_told(
    consul_with_acls: Consul, start: Start, endpoint: int, tmp_path: Path
) -> None:
    consul = consul_with_acls
    file = tmp_path / "token"
    file.write_text(consul.token('service "other" { policy = "write" }'))
    section = registered(consul, agent=f", token: {{file: '{file}'}}")
    lb = start(config([endpoint], more=section))
    lb.until(lambda: "403" in first_registration(lb)["error"])
    assert first_registration(lb)["state"] == "absent"
    assert lb.ready()
    file.write_text(consul.token('service "web" { policy = "write" }'))
    lb.until(lambda: says(consul, "passing"))
    lb.signal(signal.SIGTERM)
    lb.until(lambda: entries(consul) == [])
    assert lb.wait() == 0


def test_status_shows_it_to_people(consul: Consul, start: Start, endpoint: int) -> None:
    lb = start(config([endpoint], more=registered(consul)))
    lb.until(lambda: says(consul, "passing"))
    lb.until(lambda: first_registration(lb)["status"] == "passing")
    done = lbproxy("status", "--admin", lb.admin)
    assert f"web      web-127.0.0.1-{lb.address()[1]}  registered  passing  ready" in done.stdout
    assert json.loads(lbproxy("status", "--json", "--admin", lb.admin).stdout)["registrations"]


def test_the_first_client_does_not_wait_for_the_registry(consul: Consul, start: Start) -> None:
    """An agent that accepts and never answers is no reason to serve later."""
    listening, port = listen()
    with listening:
        consul.signal(signal.SIGSTOP)
        lb = start(config([port], more=registered(consul)))
        with connect(lb.address()), accept(listening):
            assert lb.ready()
        consul.signal(signal.SIGCONT)
        lb.until(lambda: says(consul, "passing"))
