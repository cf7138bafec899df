"""The service manager's two protocols, by hand: sd_notify(3) says how we are, sd_listen_fds(3) gives us sockets.

Without their variables in the environment (or with those of another process) everything here does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

logger = logging.getLogger("lbproxy.systemd")

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_MAX_FDS: Final = 1024  # a number beyond it is no number of sockets but a mistake
_UNNAMED: Final = "unknown"  # what systemd itself calls a descriptor without a name
_SEND_TIMEOUT_S: Final = 0.1  # the manager reads at once, or it is stuck: the event loop does not wait for it


class InheritError(Exception):
    """A descriptor that was handed over is no listening stream socket."""


class Notifier:
    """Sends to NOTIFY_SOCKET, one datagram a call, opened and closed in it. Nothing here raises: a state that cannot be told is
    logged, and the service goes on."""

    def __init__(
        self, environ: Mapping[str, str], *, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`monotonic_ns` reads CLOCK_MONOTONIC, which the manager compares with its own."""
        self._address = _notify_address(environ.get("NOTIFY_SOCKET", ""))
        self._monotonic_ns = monotonic_ns
        self.watchdog_s = _watchdog_s(environ) if self._address else None

    def ready(self, status: str = "") -> bool:
        """Started, or a reload is over. True when the manager was told, as from all of these."""
        return self._send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """A line for `systemctl status`."""
        return self._send(*_status(text))

    async def watchdog(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Say that we live, twice in each interval asked for: as long as this task gets its turn, the loop turns. Returns at once
        where no one watches."""
        if self.watchdog_s is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await sleep(self.watchdog_s / 2)

    def _send(self, *states: str) -> bool:
        if self._address is None or not states:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(_SEND_TIMEOUT_S)
                channel.connect(self._address)
                channel.sendall("\n".join(states).encode())
        except OSError as error:
            logger.warning("cannot tell the service manager %s: %s", states[0], error)
            return False
        return True


def inherited(environ: Mapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets meant for this process, with their names (FileDescriptorName=), in order; several may share one name.

    They are closed on exec from now on, and the caller's to close. To be called once. Raises InheritError for anything but listening
    stream sockets, with all of them left open.
    """
    if environ.get("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = _number(environ.get("LISTEN_FDS", ""))
    if count is None or count > _MAX_FDS:
        raise InheritError(f"LISTEN_FDS={environ.get('LISTEN_FDS', '')!r} is no number of sockets")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    named = [
        (fd, (names[index] if index < len(names) else "") or _UNNAMED)
        for index, fd in enumerate(range(_FIRST_FD, _FIRST_FD + count))
    ]
    for fd, name in named:
        if not _listens(fd):
            raise InheritError(f"descriptor {fd} ({name}) is no listening stream socket")
    for fd, _ in named:
        os.set_inheritable(fd, False)
    return [(name, socket.socket(fileno=fd)) for fd, name in named]


def _listens(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        probe = socket.socket(fileno=os.dup(fd))
    except OSError:
        return False
    with probe:
        return probe.type == socket.SOCK_STREAM and bool(
            probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )


def _notify_address(text: str) -> str | None:
    if not text:
        return None
    if text[0] not in "/@":  # vsock: of systemd 254, for virtual machines' managers
        logger.warning("NOTIFY_SOCKET=%r is no unix socket: the service manager is not told anything", text)
        return None
    return f"\0{text[1:]}" if text[0] == "@" else text


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    microseconds = _number(text)
    if text and not microseconds:
        logger.warning("WATCHDOG_USEC=%r is no time: nobody is told that we live", text)
    return microseconds / 1e6 if microseconds else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _status(text: str) -> tuple[str, ...]:
    """One line: a line end would begin another state."""
    return (f"STATUS={' '.join(text.split())}",) if text else ()
