"""Port numbers for programs that cannot be told to choose one themselves."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

LISTEN = "0A"  # the state column of /proc/net/tcp


class ReservedPort:
    """A loopback TCP port that nobody else gets while this object is open.

    The socket is bound and does not listen. With SO_REUSEADDR on both, Linux lets the server bind and listen beside
    it, while no outgoing connection and no other bind to port 0 is given the number.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.bind(("127.0.0.1", 0))
            # Only now: a bind to port 0 with the option set may be given a number that another reservation holds.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def listening(port: int, pid: int) -> bool:
    """Whether somebody listens on the TCP port in the network namespace of process `pid` (not: when it has ended).

    Nothing is connected to find out: a probe would reach the test's own servers behind the program.
    """
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
        except OSError:  # the process has ended, or there is no IPv6 here
            continue
        for line in lines[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTEN and local.endswith(wanted):
                return True
    return False
