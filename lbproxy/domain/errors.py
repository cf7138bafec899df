"""Errors with blame and retry, and the one mapping from errno to what a failed connect means."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lbproxy.domain.address import Family
from lbproxy.domain.session import EndReason


class ConnectFailure(StrEnum):
    """The label of a failed connect. `LOCAL` is our own fault and never held against an endpoint."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    LOCAL = "local"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DialCause:
    """What one errno means for a dial: its label, how a session ends if nothing else can be tried, whether trying again
    (elsewhere) makes sense."""

    failure: ConnectFailure
    reason: EndReason
    retryable: bool


_REFUSED = DialCause(ConnectFailure.REFUSED, EndReason.CONNECT_REFUSED, retryable=True)
_RESET = DialCause(ConnectFailure.RESET, EndReason.CONNECT_REFUSED, retryable=True)
_TIMEOUT = DialCause(ConnectFailure.TIMEOUT, EndReason.CONNECT_TIMEOUT, retryable=True)
_UNREACHABLE = DialCause(ConnectFailure.UNREACHABLE, EndReason.CONNECT_UNREACHABLE, retryable=True)
_OTHER = DialCause(ConnectFailure.OTHER, EndReason.CONNECT_UNREACHABLE, retryable=True)
# Ports run out per (source, destination address, destination port), so another endpoint may still be reached; file
# descriptors run out for all of them.
_NO_PORTS = DialCause(ConnectFailure.LOCAL, EndReason.LOCAL_PORTS, retryable=True)
_NO_FDS = DialCause(ConnectFailure.LOCAL, EndReason.LOCAL_FDS, retryable=False)

_CAUSES: Final[dict[int, DialCause]] = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ECONNRESET: _RESET,
    errno.EPIPE: _RESET,
    errno.ETIMEDOUT: _TIMEOUT,
    errno.EHOSTUNREACH: _UNREACHABLE,
    errno.ENETUNREACH: _UNREACHABLE,
    errno.EHOSTDOWN: _UNREACHABLE,
    errno.ENETDOWN: _UNREACHABLE,
    errno.ENOENT: _REFUSED,  # unix: nobody made the socket
    errno.EADDRNOTAVAIL: _NO_PORTS,
    errno.EAGAIN: _NO_PORTS,
    errno.EADDRINUSE: _NO_PORTS,
    errno.EMFILE: _NO_FDS,
    errno.ENFILE: _NO_FDS,
    errno.ENOBUFS: _NO_FDS,
    errno.ENOMEM: _NO_FDS,
    errno.ENOSPC: _NO_FDS,  # the user's limit of epoll watches: the socket was made and cannot be watched
    # A firewall's REJECT towards our own packets: the path is closed, not the port.
    errno.EACCES: _UNREACHABLE,
    errno.EPERM: _UNREACHABLE,
}


def dial_cause(error: int, family: Family) -> DialCause:
    """What `error` from socket() or connect() means. On unix sockets EAGAIN says that the peer's backlog is full
    (unix(7)), so it counts as refused there."""
    if family == "unix" and error == errno.EAGAIN:
        return _REFUSED
    return _CAUSES.get(error, _OTHER)


_OURS: Final = DialCause(ConnectFailure.LOCAL, EndReason.INTERNAL_ERROR, retryable=False)
# An endpoint of one family cannot be dialled from a source address of the other; the next one may be of ours.
_OTHER_FAMILY: Final = DialCause(ConnectFailure.LOCAL, EndReason.INTERNAL_ERROR, retryable=True)


def local_cause(error: int) -> DialCause:
    """What `error` means when making a socket failed, before any packet left: always our own fault (a mark without the
    capability for it, a source address that is not ours or of another family, no descriptors). Ports are chosen later, so
    EADDRNOTAVAIL does not speak of them here."""
    if error == errno.EAFNOSUPPORT:
        return _OTHER_FAMILY
    cause = _OURS if error == errno.EADDRNOTAVAIL else _CAUSES.get(error, _OURS)
    return cause if cause.failure is ConnectFailure.LOCAL else _OURS


class ResolveError(Exception):
    """A host name gave no addresses. `retryable` is False only for an authoritative 'no such name'."""

    def __init__(self, name: str, detail: str, *, retryable: bool) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.retryable = retryable


class RegistryError(Exception):
    """A registry gave no full answer: it could not be reached, refused, or said what nobody can read. `retry_after_s` is how long it
    asked to be left alone, if it said so. `listed`: what there is has been read, and waiting for what comes next has failed."""

    def __init__(self, detail: str, *, retry_after_s: float | None = None, listed: bool = False) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.listed = listed
