"""System calls a connection, counted by strace."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from benchmarks.processor import family
from benchmarks.workloads import Workload
from tests.servers.programs import find


def count(
    pid: int, port: int, workload: Workload, seconds: int, prefix: tuple[str, ...], folder: Path
) -> dict[str, float]:
    """System call -> how often for each thing done. Empty where strace is not installed or may not look."""
    strace = find("strace")
    if strace is None:
        return {}
    output = folder / "strace.txt"
    targets = [word for each in family(pid) for word in ("-p", str(each))]
    command = [*prefix, str(strace), "-f", "-c", "-U", "name,calls", "-o", str(output), *targets]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        if "attached" not in tracer.stderr.readline():
            tracer.terminate()
            return {}
        done = workload.run(port, seconds, prefix)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    calls = re.findall(r"^(\w+)\s+(\d+)$", output.read_text(), re.MULTILINE)
    return {name: int(number) / done.count for name, number in calls if name not in {"syscall", "total"}}
