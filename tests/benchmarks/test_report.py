"""What the benchmark page says about given rounds."""

from __future__ import annotations

import pytest

from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.report import Sample, missed, page, ratio
from benchmarks.workloads import WORKLOADS, Workload

WORK = Workload("new connections", "connection", (), targets={"lbproxy": 2.5})


def rounds(*whole_us: float) -> list[Sample]:
    return [Sample(each, each / 4, 1000.0, 0.01) for each in whole_us]


def test_the_ratio_is_taken_within_each_round() -> None:
    # The machine was half as fast in the second round: the medians alone would say 1.5.
    samples = {BASELINE: rounds(10, 20, 10), "lbproxy": rounds(20, 40, 30)}
    assert ratio(samples, "lbproxy") == 2.0


@pytest.mark.parametrize(("whole_us", "expected"), [(25.0, 0), (25.1, 1)])
def test_a_missed_target_is_told(whole_us: float, expected: int) -> None:
    samples = {BASELINE: rounds(10), "lbproxy": rounds(whole_us)}
    assert len(missed(WORK, samples)) == expected


def test_a_target_of_one_who_was_not_measured_is_not_missed() -> None:
    assert missed(WORK, {BASELINE: rounds(10)}) == []


def test_the_page_holds_medians_ratios_and_the_noise() -> None:
    samples = {BASELINE: rounds(10, 12, 11), "lbproxy": rounds(20, 24, 22)}
    text = page({WORK: samples}, 5, {"HAProxy": "2.6"}, "2026-01-02")
    assert "| lbproxy | 22.0 (20.0 to 24.0) | 2.00 x | <= 2.5 x | 5.5 | 1,000 |" in text
    assert "3 rounds of 5 s" in text
    assert "1% of the proxy's core" in text


def test_every_target_is_of_a_contender() -> None:
    names = {contender.name for contender in CONTENDERS}
    assert all(set(workload.targets) <= names for workload in WORKLOADS)
