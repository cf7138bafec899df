"""Listening sockets of the admin interface."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Final

from lbproxy.domain.address import Address, sockaddr
from lbproxy.wire.local import socket_name

BACKLOG: Final = 128


class UnsafeBindError(PermissionError):
    """An address that others can reach, and no token to keep them out."""


def require_safe(address: Address, *, token: bool) -> None:
    """Raises UnsafeBindError for anything but loopback and unix socket files, unless there is a token. An abstract unix socket
    has no file mode: every user of the machine can connect."""
    if address.family == "unix":
        private = not address.host.startswith("@")
    else:
        private = ipaddress.ip_address(address.host).is_loopback
    if not (private or token):
        raise UnsafeBindError(f"admin.bind {address} can be reached by others: it needs admin.token")


def listen(address: Address) -> socket.socket:
    """A listening socket; a unix socket file has mode 0600 from its first moment. A socket file that nobody listens on is
    replaced. Raises OSError (EADDRINUSE when somebody does; EEXIST when the path is no socket)."""
    if address.family == "unix":
        return _listen_unix(address)
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(socket_name(address))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _listen_unix(address: Address) -> socket.socket:
    abstract = address.host.startswith("@")
    if not abstract:
        _remove_stale(address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not abstract:
            # Linux gives the file the mode of the socket's inode (less the umask): there is no moment with a wider one.
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(sockaddr(address))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(address: Address) -> None:
    path = Path(address.host)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "exists and is no socket", address.host)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # its backlog is full: somebody is there
            try:
                probe.connect(address.host)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
    raise OSError(errno.EADDRINUSE, "somebody listens on it", address.host)


def inode(address: Address) -> tuple[int, int] | None:
    """What identifies the socket file, or None where there is none."""
    if address.family != "unix" or address.host.startswith("@"):
        return None
    try:
        status = Path(address.host).lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove(address: Address, ours: tuple[int, int] | None) -> None:
    """Remove the socket file, unless another one has taken its place."""
    if ours is not None and inode(address) == ours:
        Path(address.host).unlink(missing_ok=True)


def bound_address(listener: socket.socket, configured: Address) -> Address:
    """The configured address with the port that the kernel chose."""
    if configured.family == "unix":
        return configured
    return Address(configured.host, listener.getsockname()[1], configured.family)
