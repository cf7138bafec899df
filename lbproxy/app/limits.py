"""How many sessions this process can hold: from RLIMIT_NOFILE and memory, with a reserve for what is not a session."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from lbproxy.config.options import Share

FDS_A_SESSION: Final = 2
# What a session may cost in the worst usual case: two directions of relay buffer and the kernel's own queues before autotuning.
MEMORY_A_SESSION_BYTES: Final = 128 * 1024
_RESERVE_LEAST: Final = 64  # listeners, epoll, admin connections, resolver, log: what a small instance needs
_RESERVE_SHARE: Final = 16  # a 16th for large ones: probes and registry connections grow with the fleet
_RESERVE_MOST: Final = 1024
_CGROUP_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def raise_fd_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox may forbid it; then the soft limit is what we have
        return soft
    return hard


def reserve_fds(nofile: int) -> int:
    """Descriptors kept for everything that is not a session."""
    return min(_RESERVE_MOST, max(_RESERVE_LEAST, nofile // _RESERVE_SHARE))


def memory_limit_bytes() -> int:
    """The least of the machine's memory and this cgroup's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    for name in _CGROUP_LIMITS:
        path = Path(name)
        text = path.read_text(encoding="ascii").strip() if path.exists() else "max"
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def max_connections(
    configured: int | Share | None, nofile: int, memory_bytes: int, relay_fds: int = 0
) -> int:
    """The process's limit of sessions: the configured number as far as descriptors allow, else what fits (or a share of it).
    `relay_fds` are what the relay may open for itself (its pipes)."""
    by_fds = max(1, (nofile - reserve_fds(nofile) - relay_fds) // FDS_A_SESSION)
    if isinstance(configured, int):
        return min(configured, by_fds)
    fits = max(1, min(by_fds, memory_bytes // 2 // MEMORY_A_SESSION_BYTES))
    return fits if configured is None else max(1, int(fits * configured.fraction))
