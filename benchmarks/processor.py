"""Processor time, as the kernel counts it, and who may use which core."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Times:
    """Seconds of processor time. `whole` is user and system of all threads of a process and its children, `first_user` what its
    first thread (lbproxy: the event loop) spent in user space."""

    whole: float
    first_user: float

    def __sub__(self, before: Times) -> Times:
        return Times(self.whole - before.whole, self.first_user - before.first_user)


def process_times(pid: int) -> Times:
    """What the process and its descendants have used so far."""
    whole = sum(sum(_user_and_system(Path(f"/proc/{each}/stat"))) for each in family(pid))
    return Times(whole, _user_and_system(Path(f"/proc/{pid}/task/{pid}/stat"))[0])


def family_s(pids: Iterable[int]) -> float:
    """What all threads that now live in these processes and their descendants have used so far, to the nanosecond."""
    return sum(
        _scheduled_s(task)
        for pid in pids
        for each in family(pid)
        for task in Path(f"/proc/{each}/task").glob("*/schedstat")
    )


def _scheduled_s(schedstat: Path) -> float:
    try:
        return int(schedstat.read_text().split()[0]) * 1e-9
    except (
        FileNotFoundError,
        ProcessLookupError,
    ):  # it has ended since it was listed, as PostgreSQL's back ends do
        return 0.0


def core_busy_s(core: int) -> float:
    """How long the core has been doing anything at all for anybody, or was taken away by the hypervisor."""
    return _busy_s(f"cpu{core}", steal=True)


def machine_busy_s() -> float:
    """How long all cores together have been doing anything for anybody."""
    return _busy_s("cpu", steal=False)


def _busy_s(wanted: str, *, steal: bool) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == wanted:
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, fields[:8])
            return (user + nice + system + irq + softirq + stolen * steal) * TICK_S
    raise LookupError(f"no {wanted}")


def two_cores() -> tuple[int, int]:
    """A core for the proxy and one for everything else. Raises OSError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise OSError("two cores are needed: one for the proxy, one for the load")
    return cores[0], cores[1]


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
            children.setdefault(parent, []).append(int(process.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _user_and_system(stat: Path) -> tuple[float, float]:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # as above
        return 0.0, 0.0
    return int(fields[11]) * TICK_S, int(fields[12]) * TICK_S
