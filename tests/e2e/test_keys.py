"""The configuration in a real Consul's KV store: followed, refused and reported back, and what happens when Consul is away."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lbproxy.app.remote import PATIENCE_WITH_KEPT_S
from tests.e2e.conftest import Start
from tests.e2e.peers import connect, listen
from tests.e2e.program import Program, lbproxy
from tests.patience import WITHIN_S
from tests.servers.consul import Consul

KEY = "lbproxy/edge"
LOCAL = "admin: {bind: '127.0.0.1:0'}\nruntime: {drain_timeout: 1s}\n"


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Three ports where somebody listens."""
    listening = [listen() for _ in range(3)]
    with ExitStack() as closing:
        for each, _ in listening:
            closing.enter_context(each)
        yield [port for _, port in listening]


def config(ports: Sequence[int], *, more: str = "") -> str:
    endpoints = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    return (
        "listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n"
        f"upstreams: {{up: {{endpoints: [{endpoints}]}}}}\n{more}"
    )


def put(consul: Consul, text: str, key: str = KEY) -> None:
    consul.ask("PUT", f"/v1/kv/{key}", raw=text.encode())


def reports(consul: Consul, key: str = KEY) -> list[dict[str, Any]]:
    """What instances have reported, in the order of their names."""
    found = consul.ask("GET", "/v1/kv/", recurse="")
    return [
        json.loads(base64.b64decode(each["Value"]))
        for each in found
        if each["Key"].startswith(f"{key}.status/")
    ]


def environ(consul: Consul, **more: str) -> dict[str, str]:
    return {"CONSUL_HTTP_ADDR": f"127.0.0.1:{consul.port}", "STATE_DIRECTORY": "", **more}


def following(start: Start, consul: Consul, key: str = KEY, **more: str) -> Program:
    return start(
        LOCAL,
        further=[f"consul:{key}"],
        environ=environ(consul, **more),
        start_within_s=PATIENCE_WITH_KEPT_S + WITHIN_S,
    )


def warnings(lb: Program) -> list[str]:
    return list(lb.get("/readyz")["warnings"])


def test_a_change_is_applied_and_reported(consul: Consul, start: Start, ports: list[int]) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    assert list(lb.endpoints()) == ports[:1]
    lb.until(lambda: [each["result"] for each in reports(consul)] == ["applied"])
    with connect(lb.address()) as client:
        client.sendall(b"x")
        lb.until(lambda: lb.active() == 1)
        put(consul, config(ports))
        lb.until(lambda: len(lb.endpoints()) == 3)
        assert lb.active() == 1
    (version,) = {each["ModifyIndex"] for each in consul.ask("GET", f"/v1/kv/{KEY}")}
    lb.until(lambda: [each["version"] for each in reports(consul)] == [version])
    assert reports(consul)[0]["errors"] == []
    assert lb.total("lbproxy_config_reloads_total", result="applied") == 1
    # The same text again is no news.
    put(consul, config(ports))
    put(consul, config(ports[:2]))
    lb.until(lambda: sum(not each["ineligible"] for each in lb.endpoints().values()) == 2)
    assert lb.total("lbproxy_config_reloads_total") == 2


def test_a_version_that_is_wrong_is_refused_told_and_reported(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    put(consul, config(ports[:1]).replace("bind", "bnid"))
    lb.until(lambda: [each["result"] for each in reports(consul)] == ["refused"])
    line = f"consul:{KEY}:1:18: listeners.in.bnid: unknown key (did you mean 'bind'?)"
    assert line in reports(consul)[0]["errors"]
    assert lb.said(line)
    assert lb.total("lbproxy_config_last_reload_successful") == 0
    assert warnings(lb) == [f"configuration consul:{KEY}: its newest version is refused"]
    assert lb.ready()
    assert list(lb.endpoints()) == ports[:1]
    put(consul, "\x00 garbage")
    lb.until(lambda: "character U+0000" in str(reports(consul)[0]["errors"]))
    put(consul, config(ports[:2]))
    lb.until(lambda: len(lb.endpoints()) == 2)
    assert warnings(lb) == []
    lb.until(lambda: [each["result"] for each in reports(consul)] == ["applied"])
    assert lb.total("lbproxy_config_reloads_total", result="invalid") == 2


def test_a_report_holds_nothing_of_the_instance_s_environment(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul, SOME_PASSWORD="hunter2-and-more")
    put(consul, config(ports[:1], more="log: {level: '${SOME_PASSWORD}'}"))
    lb.until(lambda: [each["result"] for each in reports(consul)] == ["refused"])
    (line,) = reports(consul)[0]["errors"]
    assert line.startswith(f"consul:{KEY}:3:14: a value from the environment is wrong here")
    assert lb.said("log.level: 'hunter2-and-more' is not one of")


def test_two_keys_at_odds_are_refused_until_they_agree(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    listeners, upstreams = config(ports[:1]).splitlines()
    put(consul, listeners, "lb/one")
    put(consul, upstreams, "lb/two")
    lb = start(LOCAL, further=["consul:lb/one", "consul:lb/two"], environ=environ(consul))

    def results() -> list[str]:
        return [each["result"] for key in ("lb/one", "lb/two") for each in reports(consul, key)]

    lb.until(lambda: results() == ["applied", "applied"])
    put(consul, listeners.replace("upstream: up", "upstream: other"), "lb/one")
    lb.until(lambda: results() == ["refused", "applied"])
    put(consul, upstreams.replace("{up:", "{other:"), "lb/two")
    lb.until(lambda: results() == ["applied", "applied"])
    assert [one["upstream"] for one in lb.get("/api/v1/listeners")["items"]] == ["other"]


def test_a_report_is_no_reason_for_another(consul: Consul, start: Start, ports: list[int]) -> None:
    """Nor for a reload, of those who follow the folder that the reports lie in."""
    put(consul, config(ports[:1]), "all/edge")
    one = following(start, consul, "all/edge")
    two = following(start, consul, "all/")

    def results() -> list[list[str]]:
        return [[each["result"] for each in reports(consul, key)] for key in ("all/edge", "all")]

    one.until(lambda: results() == [["applied"], ["applied"]])
    put(consul, "nonsense", "all/edge")
    one.until(lambda: results() == [["refused"], ["refused"]])
    before = [each["ModifyIndex"] for each in consul.ask("GET", "/v1/kv/all", recurse="")]
    one.passes(1.5)
    assert [each["ModifyIndex"] for each in consul.ask("GET", "/v1/kv/all", recurse="")] == before
    for lb in (one, two):
        assert lb.total("lbproxy_config_reloads_total") == 1


def test_a_key_that_is_deleted_changes_nothing(consul: Consul, start: Start, ports: list[int]) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    consul.ask("DELETE", f"/v1/kv/{KEY}")
    lb.until(lambda: lb.said("is gone from Consul; what is in force stays"))
    assert warnings(lb) == [f"configuration consul:{KEY} is gone from Consul"]
    assert list(lb.endpoints()) == ports[:1]
    with connect(lb.address()):
        pass
    put(consul, config(ports[:2]))
    lb.until(lambda: len(lb.endpoints()) == 2)
    assert warnings(lb) == []


def test_an_agent_that_dies_and_comes_back_empty_changes_nothing(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    consul.kill()
    lb.until(lambda: warnings(lb) and "cannot be read" in warnings(lb)[0])
    assert lb.ready()
    consul.start()
    consul.wait_for_leader()
    lb.until(lambda: lb.said("is gone from Consul"))
    assert list(lb.endpoints()) == ports[:1]
    put(consul, config(ports[:3]))
    lb.until(lambda: len(lb.endpoints()) == 3)
    assert warnings(lb) == []


def test_several_instances_follow_one_key_and_each_reports(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    put(consul, config(ports[:1]))
    fleet = [following(start, consul) for _ in range(3)]
    put(consul, config(ports[:2]))
    fleet[0].until(lambda: all(len(lb.endpoints()) == 2 for lb in fleet))
    fleet[0].until(lambda: [each["result"] for each in reports(consul)] == ["applied"] * 3)
    assert len({each["instance"] for each in reports(consul)}) == 3
    assert len({each["version"] for each in reports(consul)}) == 1


def test_a_prefix_is_a_folder_of_keys(consul: Consul, start: Start, ports: list[int]) -> None:
    listeners, upstreams = config(ports[:1]).splitlines()
    put(consul, listeners, "lb/listeners")
    put(consul, upstreams, "lb/upstreams")
    put(consul, "what lies deeper is another matter", "lb/notes/today")
    lb = following(start, consul, "lb/")
    put(consul, upstreams.replace("up:", "upp:"), "lb/upstreams")
    line = "consul:lb/listeners:1:49: listeners.in.upstream: there is no upstream 'up' (did you mean 'upp'?)"
    lb.until(lambda: lb.said(line))
    put(consul, config(ports[:2]).splitlines()[1], "lb/upstreams")
    lb.until(lambda: len(lb.endpoints()) == 2)
    put(consul, "listeners: {two: {bind: '127.0.0.1:0', upstream: up}}", "lb/two")
    lb.until(lambda: len(lb.get("/api/v1/listeners")["items"]) == 2)


def test_a_prefix_that_loses_a_key_is_believed_after_a_while(
    consul: Consul, start: Start, ports: list[int]
) -> None:
    listeners, upstreams = config(ports[:1]).splitlines()
    put(consul, f"{listeners}\n{upstreams}", "lb/one")
    put(consul, "listeners: {two: {bind: '127.0.0.1:0', upstream: up}}", "lb/two")
    lb = following(start, consul, "lb/")
    lb.until(lambda: len(reports(consul, "lb")) == 1)
    consul.ask("DELETE", "/v1/kv/lb/two")
    lb.until(lambda: warnings(lb) and "has lost consul:lb/two" in warnings(lb)[0])
    assert len(lb.get("/api/v1/listeners")["items"]) == 2
    lb.until(lambda: len(lb.get("/api/v1/listeners")["items"]) == 1)
    assert warnings(lb) == []


def test_without_consul_it_starts_from_what_was_kept(
    consul: Consul, start: Start, ports: list[int], tmp_path: Path
) -> None:
    put(consul, config(ports[:1]))
    state = tmp_path / "state"
    first = following(start, consul, STATE_DIRECTORY=str(state))
    put(consul, config(ports[:2]))
    first.until(lambda: len(first.endpoints()) == 2)
    kept = state / "configuration.json"
    first.until(lambda: kept.exists() and f":{ports[1]}" in kept.read_text())
    first.stop()
    consul.kill()
    lb = following(start, consul, STATE_DIRECTORY=str(state))
    assert lb.said("STARTING FROM THE LAST KNOWN GOOD CONFIGURATION, saved ")
    assert sorted(lb.endpoints()) == sorted(ports[:2])
    assert "started from what was kept" in warnings(lb)[0] or "cannot be read" in warnings(lb)[0]
    consul.start()
    consul.wait_for_leader()
    put(consul, config(ports[:3]))
    lb.until(lambda: len(lb.endpoints()) == 3)
    assert warnings(lb) == []


def test_a_start_with_what_is_refused_takes_what_was_kept(
    consul: Consul, start: Start, ports: list[int], tmp_path: Path
) -> None:
    put(consul, config(ports[:1]))
    state = tmp_path / "state"
    first = following(start, consul, STATE_DIRECTORY=str(state))
    first.until((state / "configuration.json").exists)
    first.stop()
    put(consul, config(ports[:1], more="log: {level: loud}"))
    lb = following(start, consul, STATE_DIRECTORY=str(state))
    assert lb.said("STARTING FROM THE LAST KNOWN GOOD CONFIGURATION")
    assert lb.said(f"consul:{KEY}:3:14: log.level: 'loud' is not one of")
    assert list(lb.endpoints()) == ports[:1]
    assert lb.total("lbproxy_config_last_reload_successful") == 0
    lb.until(lambda: "refused" in [each["result"] for each in reports(consul)])
    put(consul, config(ports[:2]))
    lb.until(lambda: len(lb.endpoints()) == 2)
    assert lb.total("lbproxy_config_last_reload_successful") == 1


def test_with_nothing_kept_what_is_wrong_at_the_start_ends_it(consul: Consul, ports: list[int]) -> None:
    variables = environ(consul)
    absent = lbproxy("run", "-c", f"consul:{KEY}", **variables)
    assert absent.returncode == 2
    assert absent.stderr.splitlines()[-1] == f"consul:{KEY}:1:1: there is no such key in Consul"
    put(consul, config(ports).replace("bind", "bnid"))
    wrong = lbproxy("run", "-c", f"consul:{KEY}", **variables)
    assert wrong.returncode == 2
    assert f"consul:{KEY}:1:17: listeners.in: 'bind' is missing" in wrong.stderr
    nonsense = lbproxy("run", "-c", f"consul:{KEY}", **{**variables, "CONSUL_HTTP_SSL": "maybe"})
    assert (nonsense.returncode, nonsense.stderr) == (
        2,
        "CONSUL_HTTP_SSL: 'maybe' is neither true nor false\n",
    )


def test_check_reads_keys_too(consul: Consul, ports: list[int], tmp_path: Path) -> None:
    variables = environ(consul)
    local = tmp_path / "local.yaml"
    local.write_text(LOCAL)
    put(consul, config(ports))
    fine = lbproxy("check", "-c", str(local), "-c", f"consul:{KEY}", **variables)
    assert (fine.returncode, fine.stdout) == (0, "fine: 1 listener, 1 upstream, 3 endpoints\n")
    put(consul, config(ports, more="admin: {bind: '127.0.0.1:1', token: {file: token}}"))
    wrong = lbproxy("check", "-c", str(local), "-c", f"consul:{KEY}", **variables)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        f"consul:{KEY}:3:9: admin.bind: given twice (first at {local}:1:9)",
        f"consul:{KEY}:3:44: admin.token.file: what stands in Consul has no folder: write a path that begins with '/'",
    ]
    absent = lbproxy("check", "-c", "consul:nothing", **variables)
    assert (absent.returncode, absent.stderr) == (2, "consul:nothing:1:1: there is no such key in Consul\n")
    consul.kill()
    away = lbproxy("check", "-c", f"consul:{KEY}", **variables)
    assert away.returncode == 2
    assert away.stderr.startswith(f"consul:{KEY}:1:1: cannot be read: ")


def test_the_least_token_reads_and_one_that_may_not_report_is_told(
    consul_with_acls: Consul, start: Start, ports: list[int], tmp_path: Path
) -> None:
    consul = consul_with_acls
    put(consul, config(ports[:1]))
    file = tmp_path / "token"
    file.write_text(consul.token(f'key "{KEY}" {{ policy = "read" }}'))
    lb = following(start, consul, CONSUL_HTTP_TOKEN_FILE=str(file))
    lb.until(lambda: lb.said("the report is not written"))
    put(consul, config(ports[:2]))
    lb.until(lambda: len(lb.endpoints()) == 2)
    rules = f'key "{KEY}" {{ policy = "read" }} key_prefix "{KEY}.status/" {{ policy = "write" }}'
    file.write_text(consul.token(rules))
    put(consul, config(ports[:3]))
    lb.until(lambda: len(lb.endpoints()) == 3)
    lb.until(lambda: len(reports(consul)) == 1)
    file.write_text(consul.token('key "other" { policy = "read" }'))
    put(consul, config(ports[:1]))
    lb.until(lambda: warnings(lb) != [])
    assert "cannot be read" in warnings(lb)[0]
    assert "403" in warnings(lb)[0]
    assert any(not each["ineligible"] for each in lb.endpoints().values())


def test_it_stops_in_time_while_the_agent_hangs(consul: Consul, start: Start, ports: list[int]) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    lb.until(lambda: len(reports(consul)) == 1)
    consul.signal(signal.SIGSTOP)
    lb.signal(signal.SIGTERM)
    assert lb.wait() == 0  # its question would wait for minutes
    consul.signal(signal.SIGCONT)


def test_a_hangup_reads_what_was_last_seen(consul: Consul, start: Start, ports: list[int]) -> None:
    put(consul, config(ports[:1]))
    lb = following(start, consul)
    consul.kill()
    assert lb.post("/api/v1/reload")["result"] == "unchanged"
    lb.write(LOCAL + "log: {level: debug}\n")
    assert lb.post("/api/v1/reload")["changes"] == ["log: changed"]
    assert list(lb.endpoints()) == ports[:1]
