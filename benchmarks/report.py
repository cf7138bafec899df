"""From rounds to a page of Markdown: medians, and the ratio to the baseline of the same round."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contenders import BASELINE
from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Sample:
    """One contender's one round. Microseconds of processor time for each thing done; `others` is the share of the proxy's core
    that was used by something else meanwhile."""

    whole_us: float
    first_user_us: float
    rate: float
    others: float


Samples = Mapping[str, Sequence[Sample]]
"""Contender -> its rounds, in order."""


def ratio(samples: Samples, contender: str) -> float:
    """The median of each round's own ratio to the baseline: what slows a whole round down cancels out."""
    pairs = zip(samples[contender], samples[BASELINE], strict=True)
    return statistics.median(mine.whole_us / its.whole_us for mine, its in pairs)


def missed(workload: Workload, samples: Samples) -> list[str]:
    """A line for each target that was not met."""
    return [
        f"{workload.name}: {contender}: {found:.2f} x {BASELINE}, target {target:g} x"
        for contender, target in workload.targets.items()
        if contender in samples and (found := ratio(samples, contender)) > target
    ]


def page(results: Mapping[Workload, Samples], seconds: int, versions: Mapping[str, str], when: str) -> str:
    """The whole page."""
    return "\n".join([*_preface(results, seconds, versions, when), *_tables(results)]) + "\n"


def _preface(
    results: Mapping[Workload, Samples], seconds: int, versions: Mapping[str, str], when: str
) -> Iterator[str]:
    every = [sample for samples in results.values() for rounds in samples.values() for sample in rounds]
    rounds = max(len(rounds) for samples in results.values() for rounds in samples.values())
    yield f"# What a connection and a request cost, {when}"
    yield ""
    yield f"{platform.system()} {platform.release()}, Python {platform.python_version()}. " + ", ".join(
        f"{name}: {version}" for name, version in versions.items()
    )
    yield ""
    yield (
        f"{rounds} rounds of {seconds} s each, contenders in turn within a round. The proxy is pinned to one core "
        "and has one worker; the load generator (wrk, 32 clients) and the backends (nginx) share another one. Cost is the "
        "proxy's own user and system time, of all its threads and children, divided by what the load generator got done. "
        "Ratios are medians of each round's own ratio."
    )
    yield ""
    yield (
        f"Others used {statistics.median(sample.others for sample in every):.0%} of the proxy's core in the median "
        f"round, {max(sample.others for sample in every):.0%} in the worst: the more, the noisier the figures. Rates are "
        "no capacities: either core may have been the bottleneck."
    )


def _tables(results: Mapping[Workload, Samples]) -> Iterator[str]:
    for workload, samples in results.items():
        yield ""
        yield f"## {workload.name.capitalize()}"
        yield ""
        yield (
            f"| contender | µs per {workload.per}: median (least to most) | of {BASELINE} | target "
            f"| first thread, user µs | {workload.per}s a second |"
        )
        yield "| --- | --- | --- | --- | --- | --- |"
        for contender, rounds in samples.items():
            whole = [sample.whole_us for sample in rounds]
            target = workload.targets.get(contender)
            yield (
                f"| {contender} | {statistics.median(whole):.1f} ({min(whole):.1f} to {max(whole):.1f}) "
                f"| {ratio(samples, contender):.2f} x | {f'<= {target:g} x' if target else '-'} "
                f"| {statistics.median(sample.first_user_us for sample in rounds):.1f} "
                f"| {statistics.median(sample.rate for sample in rounds):,.0f} |"
            )
