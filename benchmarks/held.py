"""What idle sessions cost: memory of the process, memory of the kernel, and processor time while nothing happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processor import family, family_s
from benchmarks.workloads import LoadError

IDLE = Path(__file__).with_name("idle.py")
SETTLE_S = 0.5
FIRST = 50  # what is loaded with the first connections is no cost of the later ones
# What a connection's kernel objects are made of. Caches merged with others of the same size are counted whole: with neighbours at
# work that is a source of noise.
SLABS = frozenset(
    {"TCP", "tw_sock_TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "tcp_bind_bucket"}
)


@dataclass(frozen=True)
class Held:
    """`user` and `kernel` are bytes for each session; the kernel's include both ends' sockets, which the direct run has, too.
    `cpu` is seconds of processor time a second with `sessions` of them held."""

    sessions: int
    user: float
    kernel: float
    cpu: float


def hold(pid: int | None, port: int, sessions: int, seconds: float, prefix: tuple[str, ...]) -> Held:
    """Open `sessions` connections to the port, let them be for `seconds`, close them. Raises LoadError."""
    command = [*prefix, sys.executable, str(IDLE), "hold", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            _open(holder, FIRST)
            user_before, kernel_before = _user_bytes(pid), _kernel_bytes()
            _open(holder, sessions)
            more = sessions - FIRST
            user, kernel = (_user_bytes(pid) - user_before) / more, (_kernel_bytes() - kernel_before) / more
            began, used = time.monotonic(), family_s([pid] if pid else [])
            time.sleep(seconds)
            used = family_s([pid] if pid else []) - used
            return Held(sessions, user, kernel, used / (time.monotonic() - began))
        finally:
            holder.communicate()


def _open(holder: subprocess.Popen[str], sessions: int) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(f"{sessions}\n")
    holder.stdin.flush()
    if holder.stdout.readline() != f"{sessions}\n":
        raise LoadError(f"{sessions} idle sessions could not be opened: {' '.join(map(str, holder.args))}")  # type: ignore[arg-type]
    time.sleep(SETTLE_S)


def _user_bytes(pid: int | None) -> int:
    """The proportional set size: what is shared is counted in parts."""
    pids: Sequence[int] = family(pid) if pid else ()
    rollups = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in pids]
    return sum(
        int(line.split()[1]) * 1024
        for text in rollups
        for line in text.splitlines()
        if line.startswith("Pss:")
    )


def _kernel_bytes() -> int:
    """Sockets, files and their watchers, for the whole machine, and the buffers of TCP."""
    slabs = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    pages = int(Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split("\n")[0].split()[-1])
    return sum(int(line[1]) * int(line[3]) for line in slabs if line[0] in SLABS) + pages * 4096
