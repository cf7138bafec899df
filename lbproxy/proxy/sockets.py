"""Making sockets: listening ones, dialling ones, and the options both legs carry.

Accepted sockets inherit their options from the listening socket (Linux clones them), so an accept costs no setsockopt.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import socket
import stat
from typing import Final

from lbproxy.domain.address import Address, ip_address
from lbproxy.proxy.options import ConnectOptions, TcpOptions
from lbproxy.relay.contract import Keepalive
from lbproxy.wire.local import socket_name

FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
_RESET: Final = b"\x01\0\0\0\0\0\0\0"  # struct linger {1, 0}
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: choose the port at connect, shared per 4-tuple
_KEEPALIVE_PROBES: Final = 6
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix
# What an endpoint can send before the first byte was read here. An endpoint that answers and closes with the request unread
# has its kernel throw away what did not fit (RFC 2525, 2.17): of 200,000 bytes 128,000 arrived with the default of 128 KiB.
FIRST_WINDOW_BYTES: Final = 256 * 1024
# SO_RCVLOWAT makes room for as much as it asks for (Linux 4.18) and, unlike SO_RCVBUF, leaves the buffer to autotuning; the
# mark itself goes back to one byte at once. A configured SO_RCVBUF stands above it.
_FIRST_WINDOW: Final = (
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, FIRST_WINDOW_BYTES),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1),
)

SocketOption = tuple[int, int, int]


def keepalive(tcp: TcpOptions) -> Keepalive | None:
    """A dead peer is found after `keepalive_s` plus six probes a sixth of it apart."""
    if tcp.keepalive_s is None:
        return None
    idle_s = max(1, round(tcp.keepalive_s))
    return Keepalive(idle_s, max(1, idle_s // _KEEPALIVE_PROBES), _KEEPALIVE_PROBES)


def leg_options(tcp: TcpOptions) -> tuple[SocketOption, ...]:
    """The setsockopt triples of a TCP leg, but for its keepalive: the relay sets that of the upstream leg.

    Urgent bytes stay in the stream: the relay is told so (`urgent_inline`), and need not ask for it socket by socket.
    """
    options: list[SocketOption] = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    ]
    if tcp.user_timeout_s is not None:
        options.append(
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(tcp.user_timeout_s * 1000)))
        )
    if tcp.receive_buffer_bytes is not None:
        options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, tcp.receive_buffer_bytes))
    if tcp.send_buffer_bytes is not None:
        options.append((socket.SOL_SOCKET, socket.SO_SNDBUF, tcp.send_buffer_bytes))
    if tcp.notsent_lowat_bytes is not None:
        options.append((socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, tcp.notsent_lowat_bytes))
    return tuple(options)


def listening_options(tcp: TcpOptions) -> tuple[SocketOption, ...]:
    """As `leg_options`, with the keepalive, and back to the kernel's own where nothing is set: the socket may carry what was set
    before. (A buffer's size cannot be taken back.)"""
    reset = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0),
    ]
    wanted = leg_options(tcp)
    kept = keepalive(tcp)
    if kept is not None:
        wanted += (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, kept.idle_s),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, kept.interval_s),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, kept.probes),
        )
    named = {option[:2] for option in wanted}
    return (*(option for option in reset if option[:2] not in named), *wanted)


def open_listening(address: Address, tcp: TcpOptions, backlog: int, *, v6only: bool) -> _socket.socket:
    """A bound, listening, non-blocking socket; the caller owns it. Raises OSError.

    A unix socket file that nobody listens on is replaced; one with a listener raises EADDRINUSE.
    """
    listening = bind(address, tcp, v6only=v6only)
    try:
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def bind(address: Address, tcp: TcpOptions, *, v6only: bool) -> _socket.socket:
    """As `open_listening`, without listening yet."""
    family = FAMILIES[address.family]
    bound = _socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
    try:
        if family == socket.AF_UNIX:
            _clear_stale(address.host)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
            set_options(bound, leg_options(tcp))
        bound.bind(socket_name(address))
    except OSError:
        bound.close()
        raise
    return bound


def set_options(target: _socket.socket, options: tuple[SocketOption, ...]) -> None:
    """Set them one by one. Raises OSError at the first that is refused."""
    for option in options:
        target.setsockopt(*option)


def _clear_stale(path: str) -> None:
    if path.startswith("@"):
        return
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a plain path, no Path needed
            raise OSError(errno.EADDRINUSE, f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    if _is_listened_on(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def _is_listened_on(path: str) -> bool:
    """Asked of the kernel's table first: a connect would be a session for whoever listens. The table shows no socket of another
    network namespace, and none that takes datagrams; those tell by their answer."""
    if _unix_listeners(path):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) not in {errno.ECONNREFUSED, errno.ENOENT}


def _unix_listeners(path: str) -> set[int] | None:
    """The inodes of the sockets that listen under this name; None where the kernel does not tell."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123
            rows = [line.rstrip("\n").split(maxsplit=7) for line in table][1:]
    except OSError:
        return None
    return {int(row[6]) for row in rows if len(row) == 8 and row[7] == path and int(row[3], 16) & _ACCEPTS}


class InheritedSocket(_socket.socket):
    """A listening socket that a service manager owns, too: what it is bound to stays when we close our end."""


def close_listening(listening: _socket.socket, address: Address) -> None:
    """Take over a listening socket and close it. A unix socket's file goes with it, unless another socket has taken the name."""
    ours = not isinstance(listening, InheritedSocket)
    if ours and address.family == "unix" and not address.host.startswith("@"):
        inode = os.fstat(listening.fileno()).st_ino
        if _unix_listeners(address.host) == {inode}:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.host)  # noqa: PTH108
    listening.close()


def bound_address(listening: _socket.socket, configured: Address) -> Address:
    """What the kernel made of a bind: tells the port chosen for port 0."""
    if configured.family == "unix":
        return configured
    return Address(configured.host, listening.getsockname()[1], configured.family)


def open_dialing(family: int, options: tuple[SocketOption, ...], connect: ConnectOptions) -> _socket.socket:
    """A non-blocking socket ready to `connect_ex`; the caller owns it. Raises OSError, which is always our own fault."""
    dialing = _socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
    if family == socket.AF_UNIX:
        return dialing
    try:
        for option in options:
            dialing.setsockopt(*option)
        for option in _FIRST_WINDOW:
            dialing.setsockopt(*option)
        if connect.mark is not None:
            dialing.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, connect.mark)
        if connect.source is not None:
            if (":" in connect.source) != (family == socket.AF_INET6):
                raise OSError(
                    errno.EAFNOSUPPORT, f"connect.source {connect.source} is of another address family"
                )
            dialing.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            dialing.bind(socket_name(ip_address(connect.source, 0)))
    except OSError:
        dialing.close()
        raise
    return dialing


def dialing_options(
    family: int, options: tuple[SocketOption, ...], connect: ConnectOptions
) -> tuple[SocketOption, ...] | None:
    """All that `open_dialing` does to a new socket, if options are all it takes; else None."""
    if family == socket.AF_UNIX:
        return ()
    if connect.source is not None:
        return None
    mark = () if connect.mark is None else ((socket.SOL_SOCKET, socket.SO_MARK, connect.mark),)
    return (*options, *_FIRST_WINDOW, *mark)


def as_socket(fd: int, family: int) -> _socket.socket:
    """A stream socket's object, which owns the descriptor from now on."""
    return _socket.socket(family, socket.SOCK_STREAM, 0, fd)


def refuse(client: _socket.socket, *, reset: bool) -> None:
    """Take over a client that nobody will serve: RST or FIN, and close."""
    if reset:
        # A unix socket has no RST to give; the option is refused there and the close is an EOF.
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    else:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
    client.close()
