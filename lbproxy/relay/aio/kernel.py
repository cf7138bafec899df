"""What the relay asks the kernel about one socket, and how it closes one with an RST."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

from lbproxy.domain.address import Family
from lbproxy.relay.contract import Keepalive, Socket, TcpView

_FAMILIES: dict[int, Family] = {
    socket.AF_INET: "inet",
    socket.AF_INET6: "inet6",
    socket.AF_UNIX: "unix",
}
_NO_LINGER = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")
_ZERO = bytes(_INT.size)
# linux/tcp.h, struct tcp_info: tcpi_rtt (microseconds) and tcpi_total_retrans. Its head never changes, it only grows.
_TCP_INFO_BYTES = 104
_RTT_AND_RETRANSMITS = struct.Struct("68xI28xI")


def family(sock: Socket) -> Family:
    """The family as the domain names it."""
    return _FAMILIES[sock.family]


def unread_bytes(sock: Socket) -> int:
    """What lies in the receive queue (FIONREAD)."""
    return int(_INT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, _ZERO))[0])


def unacknowledged_bytes(sock: Socket) -> int:
    """What the peer's kernel has not acknowledged (SIOCOUTQ, the same number as TIOCOUTQ). Always 0 on a unix socket: what
    was sent lies in the peer's receive queue already, and no close takes it out of there."""
    if sock.family == socket.AF_UNIX:
        return 0
    return int(_INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _ZERO))[0])


def tcp_info(sock: Socket) -> TcpView | None:
    """What the kernel knows about a TCP connection; None on a unix socket."""
    if sock.family == socket.AF_UNIX:
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    rtt_us, retransmits = _RTT_AND_RETRANSMITS.unpack(info)
    return TcpView(rtt_us / 1e6 if rtt_us else None, retransmits)


def take_error(sock: Socket) -> int:
    """The socket's pending error, which asking for it clears; 0 without one."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def close_with_reset(sock: Socket) -> None:
    """Close at once with an RST (a unix socket knows none: its peer sees an EOF)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    sock.close()


def keep_alive(sock: Socket, keepalive: Keepalive) -> None:
    """Have the kernel find out whether a silent peer is still there. A unix socket has no use for it."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive.idle_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive.interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive.probes)


def is_connected(sock: Socket) -> bool:
    """Whether there is a peer; False on a socket whose connect failed or never began."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def is_connected_to_itself(sock: Socket) -> bool:
    """Whether a dial to a dead local port was answered by its own SYN (a simultaneous open with itself)."""
    if sock.family == socket.AF_UNIX:
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # reset since the event that led here; the next one says so
