"""`benchmarks/run`: start the backends and every contender, put the load on them in turn, report."""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import BASELINE, CONFIG_FILE, CONTENDERS, Contender
from benchmarks.processor import core_busy_s, process_times, two_cores
from benchmarks.report import Sample, missed, page
from benchmarks.workloads import WORKLOADS, LoadError, Workload
from tests.servers.process import Server, serve
from tests.servers.programs import find

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP_S = 1
BACKENDS = 4

NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ {listen} location / {{ return 200 "hello\\n"; }} }}
}}
"""


def main() -> int:
    """The exit code: 1 when a target was missed (with --check), 2 when nothing could be measured."""
    args = _arguments()
    contenders = [each for each in CONTENDERS if each.name == BASELINE or _chosen(each.name, args.contender)]
    workloads = [each for each in WORKLOADS if _chosen(each.name, args.workload)]
    for each in [each for each in contenders if each.found() is None]:
        print(f"{each.name}: {each.program} is not installed: left out", file=sys.stderr)
        contenders.remove(each)
    if BASELINE not in {each.name for each in contenders}:
        print(f"without {BASELINE} there is nothing to compare with", file=sys.stderr)
        return 2
    try:
        results = measure(contenders, workloads, args.rounds, args.seconds)
    except (LoadError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    now = dt.datetime.now(dt.UTC)
    text = page(results, args.seconds, _versions(contenders), f"{now:%Y-%m-%d}")
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{now:%Y-%m-%d-%H%M%S}.md").write_text(text)
    lines = [line for workload, samples in results.items() for line in missed(workload, samples)]
    for line in lines:
        print(f"above its target: {line}", file=sys.stderr)
    return 1 if lines and args.check else 0


def measure(
    contenders: Sequence[Contender], workloads: Sequence[Workload], rounds: int, seconds: int
) -> dict[Workload, dict[str, list[Sample]]]:
    """All contenders run from the first round to the last; whose turn it is not, is idle."""
    proxy_core, load_core = two_cores()
    on_load_core = _pinned(load_core)
    results: dict[Workload, dict[str, list[Sample]]] = {
        workload: {contender.name: [] for contender in contenders} for workload in workloads
    }
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-bench-")))
        ports = _backends(running, folder / "backends", on_load_core)
        servers = [
            _start(running, contender, ports, folder / str(number), _pinned(proxy_core))
            for number, contender in enumerate(contenders)
        ]
        for server in servers:
            for workload in workloads:
                workload.run(server.ports["proxy"], WARM_UP_S, on_load_core)
        for number in range(rounds):
            for workload in workloads:
                # Another one goes first each time: what comes after a neighbour's burst is not always the same one.
                for turn in range(len(contenders)):
                    chosen = (number + turn) % len(contenders)
                    sample = _once(servers[chosen], workload, seconds, proxy_core, on_load_core)
                    results[workload][contenders[chosen].name].append(sample)
                    _tell(number, rounds, workload, contenders[chosen], sample)
    return results


def _once(server: Server, workload: Workload, seconds: int, core: int, prefix: tuple[str, ...]) -> Sample:
    busy, before, started = core_busy_s(core), process_times(server.pid), time.monotonic()
    done, took_s = workload.run(server.ports["proxy"], seconds, prefix)
    elapsed_s = time.monotonic() - started
    used = process_times(server.pid) - before
    others_s = max(0.0, core_busy_s(core) - busy - used.whole)
    return Sample(
        whole_us=used.whole / done * 1e6,
        first_user_us=used.first_user / done * 1e6,
        rate=done / took_s,
        others=others_s / elapsed_s,
    )


def _backends(running: ExitStack, folder: Path, prefix: tuple[str, ...]) -> list[int]:
    nginx = find("nginx")
    if nginx is None:
        raise OSError("nginx is not installed (tests/servers/install.sh installs it)")
    config = NGINX.format(
        listen=" ".join(f"listen 127.0.0.1:@b{chr(97 + number)}@ backlog=4096;" for number in range(BACKENDS))
    )
    command = [*prefix, str(nginx), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
    server = running.enter_context(serve(command, folder, config=config, config_file="nginx.conf"))
    return list(server.ports.values())


def _start(
    running: ExitStack, contender: Contender, ports: Sequence[int], folder: Path, prefix: tuple[str, ...]
) -> Server:
    command = [*prefix, str(contender.found()), *contender.command]
    config = contender.config(ports)
    return running.enter_context(serve(command, folder, config=config, config_file=CONFIG_FILE))


def _pinned(core: int) -> tuple[str, ...]:
    return ("taskset", "-c", str(core))


def _chosen(name: str, wanted: Sequence[str] | None) -> bool:
    return not wanted or any(word in name for word in wanted)


def _tell(number: int, rounds: int, workload: Workload, contender: Contender, sample: Sample) -> None:
    print(
        f"round {number + 1}/{rounds}  {workload.name:<17} {contender.name:<36} {sample.whole_us:7.1f} us  "
        f"others {sample.others:.0%}",
        file=sys.stderr,
    )


def _versions(contenders: Sequence[Contender]) -> Mapping[str, str]:
    commands = {"HAProxy": ["haproxy", "-v"], "nginx": ["nginx", "-v"]}
    found = {}
    for name, (program, *words) in commands.items():
        path = find(program)
        if path is not None and (name == "nginx" or any(each.name == name for each in contenders)):
            done = subprocess.run([str(path), *words], capture_output=True, text=True, check=False)
            found[name] = (
                (done.stdout + done.stderr).splitlines()[0].partition("ersion")[2].strip(" :").split()[0]
            )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time (5)")
    parser.add_argument(
        "--contender", action="append", metavar="WORD", help="only those with this in the name"
    )
    parser.add_argument(
        "--workload", action="append", metavar="WORD", help="only those with this in the name"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
