"""`benchmarks/run`: start the servers and every contender, put the load on them in turn, report."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import calls, servers
from benchmarks.chart import chart
from benchmarks.contenders import BASELINE, CONFIG_FILE, CONTENDERS, DIRECT, Contender
from benchmarks.held import Held, hold
from benchmarks.processor import core_busy_s, family_s, machine_busy_s, process_times, two_cores
from benchmarks.report import Results, Sample, missed, page
from benchmarks.workloads import WORKLOADS, LoadError, Workload
from tests.servers.process import Server, serve
from tests.servers.programs import find

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP_S = 1
WARM_UP = ("new connections", "upload")
FILES = 20_000  # 9,000 sessions are 18,000 descriptors


@dataclass(frozen=True)
class Amount:
    """How much is measured. `held` are the numbers of idle sessions."""

    rounds: int
    seconds: int
    tool_rounds: int
    held: tuple[int, ...]
    held_s: float


FULL = Amount(rounds=5, seconds=2, tool_rounds=3, held=(2_000, 9_000), held_s=4)
QUICK = Amount(rounds=1, seconds=1, tool_rounds=1, held=(2_000,), held_s=1)


@dataclass(frozen=True)
class Turn:
    """A contender that runs. Without a proxy, `server` is None and the ports are the servers' own."""

    contender: Contender
    server: Server | None
    ports: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.contender.name

    def takes_part(self, workload: Workload) -> bool:
        only = self.contender.only
        return workload.service in self.ports and (not only or workload.name in only)


class Bench:
    """Everything that runs during one measurement. All contenders run from first to last; whose turn it is not, is idle."""

    def __init__(self, running: ExitStack, contenders: Sequence[Contender]) -> None:
        self.proxy_core, load_core = two_cores()
        self.on_load_core = _pinned(load_core)
        self.folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-bench-")))
        self.servers = servers.start(running, self.folder, self.on_load_core)
        services = {name: list(server.ports.values()) for name, server in self.servers.items()}
        self.turns = []
        for number, contender in enumerate(contenders):
            if not contender.program:
                self.turns.append(Turn(contender, None, {name: each[0] for name, each in services.items()}))
                continue
            command = [*_pinned(self.proxy_core), str(contender.found()), *contender.command]
            folder = self.folder / str(number)
            started = running.enter_context(
                serve(command, folder, config=contender.config(services), config_file=CONFIG_FILE)
            )
            self.turns.append(Turn(contender, started, started.ports))

    def once(self, turn: Turn, workload: Workload, seconds: int) -> Sample:
        pid = turn.server.pid if turn.server else None
        load = [server.pid for server in self.servers.values()]
        core, machine, began = core_busy_s(self.proxy_core), machine_busy_s(), time.monotonic()
        others, before = family_s(load) + _reaped_s(), process_times(pid) if pid else None
        done = workload.run(turn.ports[workload.service], seconds, self.on_load_core)
        elapsed_s = time.monotonic() - began
        used = process_times(pid) - before if pid and before else None
        whole_s = used.whole if used else 0.0
        ours_s = family_s(load) + _reaped_s() - others + whole_s
        return Sample(
            whole_us=whole_s / done.count * 1e6,
            first_user_us=(used.first_user if used else 0.0) / done.count * 1e6,
            rate=done.count / done.took_s,
            others=max(0.0, core_busy_s(self.proxy_core) - core - whole_s) / elapsed_s,
            ours_us=ours_s / done.count * 1e6,
            machine_us=(machine_busy_s() - machine) / done.count * 1e6,
            p50_us=done.p50_us,
            p99_us=done.p99_us,
        )


def measure(bench: Bench, workloads: Sequence[Workload], amount: Amount) -> Results:
    """All the figures."""
    results = Results(
        {each: {turn.name: [] for turn in bench.turns if turn.takes_part(each)} for each in workloads}
    )
    for sessions in amount.held:
        for turn in bench.turns:
            if turn.contender.held:
                results.held.setdefault(turn.name, []).append(_held(bench, turn, sessions, amount.held_s))
    for turn in bench.turns:
        for workload in [each for each in workloads if each.name in WARM_UP and turn.takes_part(each)]:
            workload.run(turn.ports[workload.service], WARM_UP_S, bench.on_load_core)
    for number in range(amount.rounds):
        for workload in workloads:
            if number < (amount.tool_rounds if workload.tool else amount.rounds):
                _round(bench, workload, results.samples[workload], number, amount)
    for turn in bench.turns:
        if turn.server and turn.contender.held and workloads:
            results.calls[turn.name] = calls.count(
                turn.server.pid, turn.ports["web"], workloads[0], 1, bench.on_load_core, bench.folder
            )
    return results


def _round(
    bench: Bench, workload: Workload, samples: dict[str, list[Sample]], number: int, amount: Amount
) -> None:
    taking_part = [turn for turn in bench.turns if turn.takes_part(workload)]
    # Another one goes first each time: what comes after a neighbour's burst is not always the same one.
    for place in range(len(taking_part)):
        turn = taking_part[(number + place) % len(taking_part)]
        sample = bench.once(turn, workload, amount.seconds)
        samples[turn.name].append(sample)
        _tell(f"round {number + 1}/{amount.rounds}", workload, turn, sample)


def main() -> int:
    """The exit code: 1 when a target was missed (with --check), 2 when nothing could be measured."""
    args = _arguments()
    amount = QUICK if args.quick else FULL
    amount = Amount(
        args.rounds or amount.rounds, args.seconds or amount.seconds, *_rest(amount, held=not args.not_held)
    )
    always = (DIRECT, BASELINE)
    contenders = [each for each in CONTENDERS if each.name in always or _chosen(each.name, args.contender)]
    left_out = [each for each in contenders if each.program and each.found() is None]
    for each in left_out:
        print(f"{each.name}: {each.program} is not installed: left out", file=sys.stderr)
        contenders.remove(each)
    if BASELINE not in {each.name for each in contenders}:
        print(f"without {BASELINE} there is nothing to compare with", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    load_before, began = os.getloadavg()[0], time.monotonic()
    workloads = [each for each in WORKLOADS if _chosen(each.name, args.workload)]
    try:
        with ExitStack() as running:
            bench = Bench(running, contenders)
            results = measure(bench, [each for each in workloads if each.service in bench.servers], amount)
    except (LoadError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    results.notes = [
        *(f"{each.name} was not installed and is left out." for each in left_out),
        f"The run took {(time.monotonic() - began) / 60:.0f} minutes; the load average was {load_before:.1f} before it.",
    ]
    return _publish(results, amount, contenders, check=args.check)


def _publish(results: Results, amount: Amount, contenders: Sequence[Contender], *, check: bool) -> int:
    now = dt.datetime.now(dt.UTC)
    name = f"{now:%Y-%m-%d-%H%M%S}"
    text = page(results, amount.seconds, _versions(contenders), f"{now:%Y-%m-%d}", f"{name}.svg")
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.svg").write_text(chart(results))
    lines = missed(results)
    for line in lines:
        print(f"above its target: {line}", file=sys.stderr)
    return 1 if lines and check else 0


def _held(bench: Bench, turn: Turn, sessions: int, seconds: float) -> Held:
    pid = turn.server.pid if turn.server else None
    found = hold(pid, turn.ports["idle"], sessions, seconds, bench.on_load_core)
    print(f"held {sessions}  {turn.name:<36} {found}", file=sys.stderr)
    return found


def _rest(amount: Amount, *, held: bool) -> tuple[int, tuple[int, ...], float]:
    return amount.tool_rounds, amount.held if held else (), amount.held_s


def _reaped_s() -> float:
    """What the load generators that have ended used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _pinned(core: int) -> tuple[str, ...]:
    return ("taskset", "-c", str(core))


def _chosen(name: str, wanted: Sequence[str] | None) -> bool:
    return not wanted or any(word in name for word in wanted)


def _tell(when: str, workload: Workload, turn: Turn, sample: Sample) -> None:
    print(
        f"{when}  {workload.name:<17} {turn.name:<36} {sample.whole_us / workload.unit_us:8.1f} {workload.unit}  "
        f"{sample.rate:9.1f}/s  p99 {sample.p99_us or 0:6.0f} us  others {sample.others:.0%}",
        file=sys.stderr,
    )


def _versions(contenders: Sequence[Contender]) -> Mapping[str, str]:
    words = {
        "haproxy": "-v",
        "nginx": "-v",
        "envoy": "--version",
        "wrk": "-v",
        "iperf3": "-v",
        "redis-server": "-v",
        "postgres": "-V",
    }
    paths = {name: find(name) for name in words}
    paths |= {each.program: each.found() for each in contenders if each.program in words}
    found = {}
    for name, path in paths.items():
        if path is not None:
            run = subprocess.run([str(path), words[name]], capture_output=True, text=True, check=False)
            lines = (run.stdout + run.stderr).strip().splitlines()
            number = _number(lines[0]) if lines else None
            if number:
                found[name] = number
    return found


def _number(line: str) -> str | None:
    return next(
        (
            part
            for word in line.split()
            for part in [*word.split("/"), *word.split("=")]
            if part[:1].isdigit() and "." in part
        ),
        None,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round: to see that it works, not to cite"
    )
    parser.add_argument("--rounds", type=int, help=f"how often each is measured ({FULL.rounds})")
    parser.add_argument("--seconds", type=int, help=f"how long each time ({FULL.seconds})")
    parser.add_argument(
        "--contender", action="append", metavar="WORD", help="only those with this in the name"
    )
    parser.add_argument(
        "--workload", action="append", metavar="WORD", help="only those with this in the name"
    )
    parser.add_argument("--not-held", action="store_true", help="without the idle sessions")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
