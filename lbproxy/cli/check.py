"""`lbproxy check`: what is wrong with a configuration, without serving; safe beside a running instance."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from lbproxy.config.files import NOTHING, Remote
from lbproxy.config.kv.documents import is_remote
from lbproxy.config.load import ConfigError, load
from lbproxy.config.options import Configuration
from lbproxy.domain.address import Address
from lbproxy.proxy.options import TcpOptions
from lbproxy.proxy.sockets import bind as bind_socket
from lbproxy.wire.local import port_holder
from lbproxy.wire.secrets import SecretError

FINE: Final = 0
TAKEN: Final = 1
BAD: Final = 2


def check(
    paths: Sequence[str | Path], *, bind: bool, environ: Mapping[str, str], out: TextIO, err: TextIO
) -> int:
    """One line a problem on `err`. 0 fine, 2 bad configuration; with `bind`, 1 when this machine does not give what it needs: a
    port, or a secret's file."""
    remote: Remote = NOTHING
    if any(map(is_remote, paths)):
        from lbproxy.config.kv.asking import ask  # noqa: PLC0415 - an HTTP client is loaded for those alone who name a key

        try:
            remote = ask(paths, environ)
        except ValueError as error:
            print(error, file=err)
            return BAD
    try:
        loaded = load(paths, environ, remote=remote)
    except ConfigError as error:
        for line in error.errors:
            print(line, file=err)
        return BAD
    for line in loaded.warnings:
        print(f"warning: {line}", file=err)
    configuration = loaded.configuration
    absent = list(_absent(configuration))
    for line in absent:
        # Elsewhere than on the machine it is for, a secret is rightly absent.
        print(f"{'' if bind else 'warning: '}{line}", file=err)
    if bind and absent:
        return TAKEN
    if bind:
        problems = list(_taken(configuration))
        for line in problems:
            print(line, file=err)
        if problems:
            return TAKEN
    endpoints = sum(len(upstream.endpoints) for upstream in configuration.upstreams.values())
    print(
        f"fine: {len(configuration.listeners)} listeners, {len(configuration.upstreams)} upstreams, {endpoints} endpoints",
        file=out,
    )
    return FINE


def _absent(configuration: Configuration) -> Iterator[str]:
    """Secrets that cannot be had here."""
    registration = configuration.registration
    for name, secret in (
        ("admin.token", configuration.admin.token),
        ("registration.token", None if registration is None else registration.consul.token),
    ):
        try:
            if secret is not None:
                secret.reveal()
        except SecretError as error:
            yield f"{name}: {error}"


def _taken(configuration: Configuration) -> Iterator[str]:
    """Try every bind for a moment. Nothing listens meanwhile, so no client can be caught by it."""
    ipv4_ports = {
        address.port
        for listener in configuration.listeners.values()
        for address in listener.binds
        if address.family == "inet" and address.is_wildcard
    }
    for owner, address, tcp in _binds(configuration):
        # As the running program binds: a listener on [::] takes IPv4, too, where 0.0.0.0 has no bind of its own.
        v6only = owner.startswith("admin.") or address.port in ipv4_ports
        if address.family == "unix" and not address.host.startswith("@"):
            yield from _unix_taken(owner, address)
            continue
        try:
            with contextlib.closing(bind_socket(address, tcp, v6only=v6only)):
                pass
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            holder = port_holder(address) if error.errno == errno.EADDRINUSE else None
            yield f"{owner}: cannot bind {address}: {text}{f' (held by {holder})' if holder else ''}"


def _unix_taken(owner: str, address: Address) -> Iterator[str]:
    """Binding would replace the file of a running instance, so only the folder is looked at."""
    folder = Path(address.host).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        yield f"{owner}: cannot bind {address}: {folder} is not a folder that can be written to"


def _binds(configuration: Configuration) -> Iterator[tuple[str, Address, TcpOptions]]:
    for name, listener in configuration.listeners.items():
        for address in listener.binds:
            yield f"listener {name}", address, listener.tcp
    yield "admin.bind", configuration.admin.bind, TcpOptions()
    if configuration.admin.metrics_bind is not None:
        yield "admin.metrics_bind", configuration.admin.metrics_bind, TcpOptions()
