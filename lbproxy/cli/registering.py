"""An instance registers with a running lbproxy, and keeps its lease for as long as it lives."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from lbproxy.cli.client import AdminClient, ClientError, upstream_path

FINE: Final = 0
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RENEWALS_A_LEASE: Final = 3  # two may be lost
RETRY_MOST_S: Final = 5.0
_ATTRIBUTES: Final = ("weight", "zone", "priority", "max_connections")


def register(client: AdminClient, args: argparse.Namespace) -> dict[str, Any]:
    """Register or renew once. Raises ClientError."""
    body: dict[str, object] = {"lease_s": args.lease}
    body |= {key: getattr(args, key) for key in _ATTRIBUTES if getattr(args, key) is not None}
    if args.metadata:
        body["metadata"] = dict(args.metadata)
    return dict(client.put(upstream_path(args.upstream, args.endpoint), body))


def deregister(client: AdminClient, args: argparse.Namespace) -> dict[str, Any]:
    """Raises ClientError."""
    return dict(client.delete(upstream_path(args.upstream, args.endpoint)))


def keep(client: AdminClient, args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Renew until one of the signals of `ENDING`, then deregister. Says what has changed, a line each.

    An lbproxy that does not answer is tried again and again: it may be about to start. Raises ClientError when it answers no.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        trouble: str | None = None
        registered = False
        while True:
            started = time.monotonic()
            found = _try(client, args)
            if found is None and (trouble is not None or not registered):
                say(f"{args.upstream} {args.endpoint}: registered, renewed until SIGTERM")
                registered = True
            if found is not None and found != trouble:
                say(f"lbproxy: {found}; trying again")
            trouble = found
            wait_s = args.lease / RENEWALS_A_LEASE
            if trouble is not None:
                wait_s = min(wait_s, RETRY_MOST_S)
            left_s = max(0.0, wait_s - (time.monotonic() - started))
            if signal.sigtimedwait(ENDING, left_s) is not None:
                break
        if registered:
            _leave(client, args, say)
        return FINE
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _try(client: AdminClient, args: argparse.Namespace) -> str | None:
    """None, or why there is no lease now. Raises ClientError for what will not get better by trying again."""
    try:
        register(client, args)
    except ClientError as error:
        if 400 <= error.status < 500 and error.status not in {404, 408, 409, 429}:
            raise
        return error.lines[0]
    return None


def _leave(client: AdminClient, args: argparse.Namespace, say: Callable[[str], None]) -> None:
    try:
        deregister(client, args)
    except ClientError as error:
        if error.status != 404:  # then it is gone already
            say(f"lbproxy: {error.lines[0]}; the lease ends by itself within {args.lease:g} s")
            return
    say(f"{args.upstream} {args.endpoint}: deregistered")
