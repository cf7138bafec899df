"""From rounds to a page of Markdown: medians, and the ratio to the baseline of the same round."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.contenders import BASELINE, DIRECT, NATIVE, NATIVE_LOG
from benchmarks.held import Held
from benchmarks.workloads import Workload

HELD_TARGET, HELD_TARGET_BYTES = 0.5, 1536
SHARE_TARGET_US = 8.0


@dataclass(frozen=True)
class Sample:
    """One contender's one round. Microseconds of processor time for each thing done: `whole_us` of the proxy, `ours_us` of the proxy,
    the load generator and the servers, `machine_us` of everybody on the machine. `others` is the share of the proxy's core that was
    used by something else meanwhile."""

    whole_us: float
    first_user_us: float
    rate: float
    others: float
    ours_us: float = 0.0
    machine_us: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None


Samples = Mapping[str, list[Sample]]
"""Contender -> its rounds, in order."""


@dataclass
class Results:
    """`held`: contender -> one for each number of sessions. `calls`: contender -> system call -> how often for a connection."""

    samples: dict[Workload, dict[str, list[Sample]]]
    held: dict[str, list[Held]] = field(default_factory=dict)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Median, least and most of the rounds' own ratios: what slows a whole round down cancels out."""

    median: float
    least: float
    most: float

    @property
    def no_difference(self) -> bool:
        return self.least <= 1.0 <= self.most and self.least < self.most

    def __str__(self) -> str:
        text = f"{self.median:.2f} x ({self.least:.2f} to {self.most:.2f})"
        return f"{text}, no difference" if self.no_difference else text


def ratio(
    samples: Samples, contender: str, value: Callable[[Sample], float] = lambda sample: sample.whole_us
) -> Ratio:
    """How many times the baseline's cost, or whatever `value` takes."""
    pairs = zip(samples[contender], samples[BASELINE], strict=True)
    found = [value(mine) / value(its) for mine, its in pairs]
    return Ratio(statistics.median(found), min(found), max(found))


def missed(results: Results) -> list[str]:
    """A line for each target that was not met."""
    lines = []
    for workload, samples in results.samples.items():
        for what, targets, value in (
            ("", workload.targets, lambda sample: sample.whole_us),
            (", p99", workload.p99_targets, lambda sample: sample.p99_us or 0.0),
        ):
            for contender, target in targets.items():
                if samples.get(contender) and (found := ratio(samples, contender, value).median) > target:
                    lines.append(
                        f"{workload.name}{what}: {contender}: {found:.2f} x {BASELINE}, target {target:g} x"
                    )
        if samples.get(NATIVE_LOG) and samples.get(NATIVE):
            share = statistics.median(each.first_user_us for each in samples[NATIVE])
            if share > SHARE_TARGET_US:
                lines.append(
                    f"the share of Python: {NATIVE}: {share:.1f} µs per {workload.per}, target {SHARE_TARGET_US:g} µs"
                )
    if NATIVE in results.held:
        mine, its = results.held[NATIVE][-1].user, results.held[BASELINE][-1].user
        if mine > HELD_TARGET_BYTES or mine > HELD_TARGET * its:
            lines.append(
                f"user memory of an idle session: {NATIVE}: {mine:,.0f} bytes, {mine / its:.2f} x {BASELINE}, "
                f"targets {HELD_TARGET_BYTES:,} bytes and {HELD_TARGET:g} x"
            )
    return lines


def page(results: Results, seconds: int, versions: Mapping[str, str], when: str, plot: str = "") -> str:
    """The whole page."""
    parts = [_preface(results, seconds, versions, when)]
    if plot:
        parts.append(iter(("", f"![what each costs, as a multiple of {BASELINE}]({plot})")))
    parts += [
        _targets(results),
        _costs(results),
        _latencies(results),
        _held(results),
        _shares(results),
        _calls(results),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _preface(results: Results, seconds: int, versions: Mapping[str, str], when: str) -> Iterator[str]:
    every = [
        sample for samples in results.samples.values() for rounds in samples.values() for sample in rounds
    ]
    yield f"# What a connection, a request and a byte cost, {when}"
    yield ""
    yield f"{platform.system()} {platform.release()}, Python {platform.python_version()}. " + ", ".join(
        f"{name}: {version}" for name, version in versions.items()
    )
    if not every:
        return
    rounds = max(len(each) for samples in results.samples.values() for each in samples.values())
    yield ""
    yield (
        f"{rounds} rounds of {seconds} s each, contenders in turn within a round. The proxy is pinned to one core and has one worker; "
        "the load generators and the servers share another one. Cost is the proxy's own user and system time, of all its threads and "
        "children, divided by what the load generator got done. Ratios are medians of each round's own ratio, with the least and the "
        'most; "no difference" where those lie on both sides of 1. What it means: [docs/benchmarks.md](../../docs/benchmarks.md).'
    )
    yield ""
    yield (
        f"Others used {statistics.median(sample.others for sample in every):.0%} of the proxy's core in the median "
        f"round, {max(sample.others for sample in every):.0%} in the worst: the more, the noisier the figures. Rates are "
        "no capacities: either core may have been the bottleneck. " + " ".join(results.notes)
    )


def _targets(results: Results) -> Iterator[str]:
    lines = missed(results)
    yield ""
    yield "**Targets missed:** " + ("; ".join(lines) if lines else "none of those measured") + "."


def _costs(results: Results) -> Iterator[str]:
    for tool in (False, True):
        workloads = {
            each: samples for each, samples in results.samples.items() if each.tool == tool and samples
        }
        if tool and workloads:
            yield ""
            yield "## Real load tools against real servers"
            yield ""
            yield "Besides wrk and iperf3, which the other tables are made with."
        for workload, samples in workloads.items():
            yield ""
            yield f"### {workload.name}" if tool else f"## {workload.name.capitalize()}"
            yield ""
            yield (
                f"| contender | {workload.unit} per {workload.per}: median (least to most) | of {BASELINE} | target "
                f"| proxy, load and servers, less direct | whole machine, less direct | {workload.per}{'s' * (workload.per != 'GB')} a second |"
            )
            yield "| --- | --- | --- | --- | --- | --- | --- |"
            yield from (_cost(workload, samples, contender) for contender in samples)


def _cost(workload: Workload, samples: Samples, contender: str) -> str:
    rounds = samples[contender]
    rate = statistics.median(sample.rate for sample in rounds)
    speed = f"{rate:,.0f}" if rate > 100 else f"{rate:.2f}"
    if contender == DIRECT:
        return f"| {DIRECT} | - | - | - | - | - | {speed} |"
    whole = [sample.whole_us / workload.unit_us for sample in rounds]
    target = workload.targets.get(contender)
    ours = machine = "-"
    if DIRECT in samples:
        pairs = list(zip(rounds, samples[DIRECT], strict=True))
        ours = (
            f"{statistics.median(mine.ours_us - its.ours_us for mine, its in pairs) / workload.unit_us:.1f}"
        )
        machine = f"{statistics.median(mine.machine_us - its.machine_us for mine, its in pairs) / workload.unit_us:.1f}"
    of = "1.00 x" if contender == BASELINE else str(ratio(samples, contender))
    return (
        f"| {contender} | {statistics.median(whole):.1f} ({min(whole):.1f} to {max(whole):.1f}) | {of} "
        f"| {f'<= {target:g} x' if target else '-'} | {ours} | {machine} | {speed} |"
    )


def _latencies(results: Results) -> Iterator[str]:
    timed = {
        workload: samples
        for workload, samples in results.samples.items()
        if samples.get(DIRECT) and samples[DIRECT][0].p99_us is not None
    }
    if not timed:
        return
    yield ""
    yield "## Latency added"
    yield ""
    yield (
        "Medians of the rounds, less the direct run's, in µs. The clients send as fast as they are answered: with many of them this is "
        "waiting in a queue, and says who gets more done, not how long a byte takes."
    )
    yield ""
    yield f"| workload | contender | p50 added | p99 added | p99 | p99 of {BASELINE} | target |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for workload, samples in timed.items():
        p50, p99 = _latency(samples[DIRECT])
        for contender, rounds in samples.items():
            if contender == DIRECT or any(sample.p99_us is None for sample in rounds):
                continue
            mine50, mine99 = _latency(rounds)
            of = (
                "1.00 x"
                if contender == BASELINE
                else str(ratio(samples, contender, lambda each: each.p99_us or 0.0))
            )
            target = workload.p99_targets.get(contender)
            yield (
                f"| {workload.name} | {contender} | {mine50 - p50:,.0f} | {mine99 - p99:,.0f} | {mine99:,.0f} | {of} "
                f"| {f'<= {target:g} x' if target else '-'} |"
            )


def _latency(rounds: Sequence[Sample]) -> tuple[float, float]:
    return statistics.median(each.p50_us or 0.0 for each in rounds), statistics.median(
        each.p99_us or 0.0 for each in rounds
    )


def _held(results: Results) -> Iterator[str]:
    if not results.held:
        return
    yield ""
    yield "## Idle sessions"
    yield ""
    yield (
        "User memory is the growth of the proxy's proportional set size. Kernel memory is the growth of the kernel's caches of sockets, "
        "files and watchers, less the direct run's; neighbours' connections disturb it. Each session has carried 15 bytes each way."
    )
    yield ""
    yield f"| contender | sessions | user bytes per session | of {BASELINE} | target | kernel bytes per session | CPU while held, ms a second |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for contender, each in results.held.items():
        if contender == DIRECT:
            continue
        for number, held in enumerate(each):
            direct = results.held[DIRECT][number].kernel if DIRECT in results.held else 0.0
            of = held.user / results.held[BASELINE][number].user
            target = f"<= {HELD_TARGET:g} x, <= {HELD_TARGET_BYTES:,}" if contender == NATIVE else "-"
            yield (
                f"| {contender} | {held.sessions:,} | {held.user:,.0f} | {of:.2f} x | {target} | {held.kernel - direct:,.0f} "
                f"| {held.cpu * 1000:.2f} |"
            )


def _shares(results: Results) -> Iterator[str]:
    for workload, samples in results.samples.items():
        if NATIVE_LOG in samples and NATIVE in samples:
            off, on = ([each.first_user_us for each in samples[name]] for name in (NATIVE, NATIVE_LOG))
            yield ""
            yield "## The share of Python"
            yield ""
            yield (
                f"User time of the event loop's thread with the native relay, µs per {workload.per} (target <= {SHARE_TARGET_US:g}): "
                f"**{statistics.median(off):.1f}** ({min(off):.1f} to {max(off):.1f}); with the access log "
                f"**{statistics.median(on):.1f}** ({min(on):.1f} to {max(on):.1f})."
            )


def _calls(results: Results) -> Iterator[str]:
    if not any(results.calls.values()):
        return
    yield ""
    yield "## System calls a connection"
    yield ""
    yield "Counted by strace in a short run of new connections, which it slows down: fewer events come at a time than at full speed."
    yield ""
    yield "| contender | all | which |"
    yield "| --- | --- | --- |"
    for contender, calls in results.calls.items():
        most = sorted(calls.items(), key=lambda item: -item[1])
        which = ", ".join(f"{name} {number:.1f}" for name, number in most if number >= 0.05)
        yield f"| {contender} | {sum(calls.values()):.1f} | {which} |"
