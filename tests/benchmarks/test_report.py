"""What the benchmark page says about given rounds, and what is read from the load tools."""

from __future__ import annotations

import json

import pytest

from benchmarks.chart import chart
from benchmarks.contenders import BASELINE, CONTENDERS, DIRECT, NATIVE, Contender
from benchmarks.held import Held
from benchmarks.report import Results, Sample, missed, page, ratio
from benchmarks.workloads import WORKLOADS, Done, Workload, read_iperf3, read_pgbench, read_redis, read_wrk

SERVICES = {"web": [1001, 1002], "bulk": [1003]}


def work(**targets: float) -> Workload:
    return Workload("new connections", "connection", "web", lambda *_: (), lambda _: None, targets=targets)


def rounds(*whole_us: float) -> list[Sample]:
    return [Sample(each, each / 4, 1000.0, 0.01, each + 1, each + 2, 10.0, 20.0) for each in whole_us]


def test_the_ratio_is_taken_within_each_round() -> None:
    # The machine was half as fast in the second round: the medians alone would say 1.5.
    samples = {BASELINE: rounds(10, 20, 10), "lbproxy": rounds(20, 40, 30)}
    assert ratio(samples, "lbproxy").median == 2.0


@pytest.mark.parametrize(
    ("whole_us", "told"), [((9, 10, 11), True), ((11, 12, 13), False), ((7, 8, 9), False)]
)
def test_no_difference_is_what_lies_on_both_sides_of_one(whole_us: tuple[float, ...], told: bool) -> None:
    samples = {BASELINE: rounds(10, 10, 10), "lbproxy": rounds(*whole_us)}
    assert ratio(samples, "lbproxy").no_difference is told


@pytest.mark.parametrize(("whole_us", "expected"), [(25.0, 0), (25.1, 1)])
def test_a_missed_target_is_told(whole_us: float, expected: int) -> None:
    samples = {BASELINE: rounds(10), "lbproxy": rounds(whole_us)}
    assert len(missed(Results({work(lbproxy=2.5): samples}))) == expected


def test_a_target_of_one_who_was_not_measured_is_not_missed() -> None:
    assert missed(Results({work(lbproxy=2.5): {BASELINE: rounds(10)}})) == []


@pytest.mark.parametrize(("user", "expected"), [(1000.0, 0), (1200.0, 1)])
def test_memory_is_held_against_the_baseline_and_a_limit(user: float, expected: int) -> None:
    held = {BASELINE: [Held(9, 2000.0, 0.0, 0.0)], NATIVE: [Held(9, user, 0.0, 0.0)]}
    assert len(missed(Results({}, held))) == expected


def test_the_page_holds_medians_ratios_and_the_noise() -> None:
    samples = {DIRECT: rounds(0, 0, 0), BASELINE: rounds(10, 12, 11), "lbproxy": rounds(20, 24, 22)}
    text = page(Results({work(lbproxy=2.5): samples}), 5, {"HAProxy": "2.6"}, "2026-01-02")
    assert (
        "| lbproxy | 22.0 (20.0 to 24.0) | 2.00 x (2.00 to 2.00) | <= 2.5 x | 22.0 | 22.0 | 1,000 |" in text
    )
    assert "3 rounds of 5 s" in text
    assert "1% of the proxy's core" in text
    assert "none of those measured" in text


def test_the_chart_has_a_bar_for_each_contender() -> None:
    picture = chart(Results({work(): {BASELINE: rounds(10), NATIVE: rounds(8)}}))
    assert picture.startswith("<svg")
    assert ">0.80</text>" in picture


def test_every_target_is_of_a_contender_and_every_exclusive_workload_exists() -> None:
    names = {contender.name for contender in CONTENDERS}
    workloads = {workload.name for workload in WORKLOADS}
    assert all({*workload.targets, *workload.p99_targets} <= names for workload in WORKLOADS)
    assert all(set(contender.only) <= workloads for contender in CONTENDERS)


@pytest.mark.parametrize(
    "contender", [each for each in CONTENDERS if each.program], ids=lambda each: each.name
)
def test_a_configuration_names_every_service_and_server(contender: Contender) -> None:
    text = contender.config(SERVICES)
    assert all(f"@{service}@" in text for service in SERVICES)
    assert all(str(port) in text for ports in SERVICES.values() for port in ports)


WRK = """Running 2s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  409.00us
     99%    1.50ms
  5000 requests in 2.00s, 1.00MB read
"""


def test_wrk_is_read() -> None:
    assert read_wrk(WRK) == Done(5000, 2.0, 409.0, 1500.0)


def test_wrk_with_errors_counts_for_nothing() -> None:
    assert read_wrk(WRK + "  Socket errors: connect 0, read 1, write 0, timeout 0\n") is None


def test_iperf3_is_read_and_its_errors_count_for_nothing() -> None:
    end = {"end": {"sum_received": {"bytes": 3e9, "seconds": 2.0}}}
    assert read_iperf3(json.dumps(end)) == Done(3.0, 2.0)
    assert read_iperf3('{"error": "the server is busy", "end": {}}') is None


def test_redis_benchmark_is_read() -> None:
    assert read_redis('"GET","1000.5","0.2","0.1","0.3","0.4","0.9","2.0"\n') == Done(
        1000.5, 1.0, 300.0, 900.0
    )


def test_pgbench_is_read() -> None:
    text = (
        "number of transactions actually processed: 300\nlatency average = 1 ms\ntps = 150.0 (without ...)\n"
    )
    assert read_pgbench(text) == Done(300, 2.0)
