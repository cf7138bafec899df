"""`lbproxy version`: what runs here and what the machine offers, each found by trying it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import socket
from contextlib import closing
from typing import TextIO

from lbproxy.relay.native.relay import available


def version(out: TextIO, *, as_json: bool) -> int:
    """Print the facts; the exit code is 0."""
    facts = found()
    if as_json:
        print(json.dumps(facts, indent=2), file=out)
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        print(f"{name.replace('_', ' '):<{width}}  {shown}", file=out)
    return 0


def found() -> dict[str, str | bool]:
    """Every fact by name, in the order of showing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "lbproxy": importlib.metadata.version("lbproxy"),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "event_loop": _event_loop(),
        "relay": _relay(),
        "kernel": f"{platform.system()} {platform.release()}",
        "splice": _splice_works(),
        "reuseport": _option_works("SO_REUSEPORT"),
        "mark": _option_works("SO_MARK"),
        "ipv6": _ipv6_works(),
        "descriptors": f"{soft} (at most {hard})",
    }


def _event_loop() -> str:
    if importlib.util.find_spec("uvloop") is None:
        return "asyncio"
    return f"uvloop {importlib.metadata.version('uvloop')}"


def _relay() -> str:
    missing = available()
    return "native" if missing is None else f"asyncio ({missing})"


def _splice_works() -> bool:
    """From one pipe into another: system call filters refuse it on some machines."""
    if not hasattr(os, "splice"):
        return False
    pipes = [*os.pipe(), *os.pipe()]
    try:
        os.write(pipes[1], b"x")
        return os.splice(pipes[0], pipes[3], 1) == 1
    except OSError:
        return False
    finally:
        for descriptor in pipes:
            os.close(descriptor)


def _option_works(name: str) -> bool:
    option = getattr(socket, name, None)
    if option is None:
        return False
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        except OSError:
            return False
    return True


def _ipv6_works() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6, socket.SOCK_STREAM)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
