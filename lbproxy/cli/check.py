"""`lbproxy check`: what is wrong with a configuration, without serving; safe beside a running instance."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
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
from lbproxy.wire.secrets import Secret, SecretError
from lbproxy.wire.tls import ClientTls
from lbproxy.wire.tls_options import TlsOptions

FINE: Final = 0
TAKEN: Final = 1
BAD: Final = 2


def check(
    paths: Sequence[str | Path], *, bind: bool, environ: Mapping[str, str], out: TextIO, err: TextIO
) -> int:
    """One line a problem on `err`. 0 fine, 2 bad configuration; with `bind`, 1 when this machine does not give what it needs: a
    port, or the file of a secret or certificate."""
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
    print(f"fine: {_sum(configuration)}", file=out)
    return FINE


def _sum(configuration: Configuration) -> str:
    upstreams = configuration.upstreams.values()
    numbers = {
        "listener": len(configuration.listeners),
        "upstream": len(upstreams),
        "endpoint": sum(len(upstream.endpoints) for upstream in upstreams),
        "discovery source": sum(len(upstream.discovery) for upstream in upstreams),
    }
    told = {what: number for what, number in numbers.items() if number or what in ("listener", "upstream")}
    return ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in told.items())


def _absent(configuration: Configuration) -> Iterator[str]:
    """Secrets and certificates that cannot be had here."""
    if configuration.admin.token is not None:
        yield from _unreadable("admin.token", configuration.admin.token)
    if configuration.registration is not None:
        yield from _unreadable("registration", configuration.registration.consul)
    for name, upstream in configuration.upstreams.items():
        for index, source in enumerate(upstream.discovery):
            place = f"[{index}]" if len(upstream.discovery) > 1 else ""
            yield from _unreadable(f"upstreams.{name}.discovery{place}", source.registry)


def _unreadable(path: str, options: object) -> Iterator[str]:
    """What is wrong with the files that these options name, wherever in them they do."""
    try:
        if isinstance(options, Secret):
            options.reveal()
        elif isinstance(options, TlsOptions):
            if options != TlsOptions(server_name=options.server_name, verify=options.verify):
                ClientTls(options).context()
        elif is_dataclass(options):
            for field in fields(options):
                known = isinstance(value := getattr(options, field.name), Secret | TlsOptions)
                yield from _unreadable(f"{path}.{field.name}" if known else path, value)
    except SecretError as error:
        yield f"{path}: {error}"
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        yield f"{path}: {file}{error.strerror or error}"


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
