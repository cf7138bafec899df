"""What an errno means for a dial: whose fault it is, how the session is told to have ended, and whether another try makes sense."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.address import Family
from lbproxy.domain.errors import ConnectFailure, dial_cause, local_cause
from lbproxy.domain.session import EndReason

FAMILIES: tuple[Family, ...] = ("inet", "inet6", "unix")


@pytest.mark.parametrize(
    ("error", "family", "failure", "reason", "retryable"),
    [
        (errno.ECONNREFUSED, "inet", ConnectFailure.REFUSED, EndReason.CONNECT_REFUSED, True),
        (errno.ETIMEDOUT, "inet", ConnectFailure.TIMEOUT, EndReason.CONNECT_TIMEOUT, True),
        (errno.EHOSTUNREACH, "inet", ConnectFailure.UNREACHABLE, EndReason.CONNECT_UNREACHABLE, True),
        (errno.ENETUNREACH, "inet6", ConnectFailure.UNREACHABLE, EndReason.CONNECT_UNREACHABLE, True),
        (errno.ECONNRESET, "inet", ConnectFailure.RESET, EndReason.CONNECT_REFUSED, True),
        (errno.ENOENT, "unix", ConnectFailure.REFUSED, EndReason.CONNECT_REFUSED, True),
        # A full backlog there, a want of ports here.
        (errno.EAGAIN, "unix", ConnectFailure.REFUSED, EndReason.CONNECT_REFUSED, True),
        (errno.EAGAIN, "inet", ConnectFailure.LOCAL, EndReason.LOCAL_PORTS, True),
        (errno.EADDRNOTAVAIL, "inet", ConnectFailure.LOCAL, EndReason.LOCAL_PORTS, True),
        (errno.EMFILE, "inet", ConnectFailure.LOCAL, EndReason.LOCAL_FDS, False),
        (errno.ENOBUFS, "unix", ConnectFailure.LOCAL, EndReason.LOCAL_FDS, False),
        (errno.EPROTO, "inet", ConnectFailure.OTHER, EndReason.CONNECT_UNREACHABLE, True),
    ],
)
def test_a_failed_connect(
    error: int, family: Family, failure: ConnectFailure, reason: EndReason, retryable: bool
) -> None:
    cause = dial_cause(error, family)
    assert (cause.failure, cause.reason, cause.retryable) == (failure, reason, retryable)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (errno.EMFILE, EndReason.LOCAL_FDS, False),
        (errno.EPERM, EndReason.INTERNAL_ERROR, False),  # a mark without the capability for it
        (errno.EADDRNOTAVAIL, EndReason.INTERNAL_ERROR, False),  # a source address that is not ours
        (errno.EAFNOSUPPORT, EndReason.INTERNAL_ERROR, True),  # or not of the endpoint's family
        (errno.ECONNREFUSED, EndReason.INTERNAL_ERROR, False),  # nothing that a socket in the making says
    ],
)
def test_a_socket_that_could_not_be_made(error: int, reason: EndReason, retryable: bool) -> None:
    cause = local_cause(error)
    assert (cause.failure, cause.reason, cause.retryable) == (ConnectFailure.LOCAL, reason, retryable)


@given(st.integers(-200, 200), st.sampled_from(FAMILIES))
def test_every_errno_has_a_meaning_and_before_the_dial_it_is_never_the_endpoints_fault(
    error: int, family: Family
) -> None:
    assert dial_cause(error, family).reason in EndReason
    assert local_cause(error).failure is ConnectFailure.LOCAL
