"""Opening listening sockets before anything is applied: all of them, or none."""

from __future__ import annotations

import _socket
import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence

from lbproxy.domain.address import Address, AddressError, ip_address, unix_address
from lbproxy.proxy.options import ListenerOptions
from lbproxy.proxy.sockets import InheritedSocket, close_listening, open_listening
from lbproxy.wire.local import port_holder, with_zone

logger = logging.getLogger("lbproxy.app")


class BindError(Exception):
    """Some addresses could not be bound; `errors` has a line each, which names the listener."""

    def __init__(self, failures: Sequence[tuple[str, Address, OSError]]) -> None:
        self._failures = failures
        self.errors = tuple(_line(*failure) for failure in failures)
        super().__init__("; ".join(self.errors))

    def explained(self) -> tuple[str, ...]:
        """As `errors`, with the process that holds a taken port where it can be found: a walk through /proc, not for the loop."""
        return tuple(
            f"{line}{_held(error, address)}"
            for line, (_, address, error) in zip(self.errors, self._failures, strict=True)
        )


Inherited = dict[Address, _socket.socket]


Place = tuple[str, Address]


def place(listener: str, address: Address) -> Place:
    """What names a bound socket: its address, whoever serves it. Only port 0 is another port for each listener that asks."""
    chosen_by_kernel = address.port == 0 and address.family != "unix"
    return (listener if chosen_by_kernel else "", address)


def open_new(
    listeners: Mapping[str, ListenerOptions], present: Iterable[Place], inherited: Inherited
) -> dict[Place, _socket.socket]:
    """Sockets for every configured place that is not `present`; one that was `inherited` is used (and taken out there).

    The caller owns them. Raises BindError, with nothing left open.
    """
    known = set(present)
    opened: dict[Place, _socket.socket] = {}
    failures: list[tuple[str, Address, OSError]] = []
    wanted = [(options, address) for options in listeners.values() for address in options.binds]
    ipv4_ports = {address.port for _, address in wanted if address.family == "inet" and address.is_wildcard}
    for options, address in wanted:
        key = place(options.name, address)
        if key in known or key in opened:
            continue
        try:
            if address in inherited:
                opened[key] = inherited.pop(address)
            else:
                v6only = address.port != 0 and address.port in ipv4_ports
                opened[key] = open_listening(address, options.tcp, options.backlog, v6only=v6only)
        except OSError as error:
            failures.append((options.name, address, error))
    if failures:
        close_all(opened)
        raise BindError(failures)
    return opened


def close_all(opened: Mapping[Place, _socket.socket]) -> None:
    """Undo `open_new`."""
    for (_, address), listening in opened.items():
        close_listening(listening, address)


def _line(listener: str, address: Address, error: OSError) -> str:
    text = os.strerror(error.errno) if error.errno else str(error)
    return f"listener {listener}: cannot bind {address}: {text}"


def _held(error: OSError, address: Address) -> str:
    if error.errno != errno.EADDRINUSE or address.family == "unix":
        return ""
    holder = port_holder(address)
    return f" (held by {holder})" if holder else ""


def inherited_sockets(sockets: Iterable[tuple[str, socket.socket]]) -> Inherited:
    """systemd's sockets by the address they are bound to: a listener that binds the same address gets the socket."""
    found: Inherited = {}
    for _, inherited in sockets:
        name = inherited.getsockname()
        try:
            if inherited.family == socket.AF_UNIX:
                text = name if isinstance(name, str) else "@" + bytes(name)[1:].decode()
                address = unix_address(text)
            else:
                address = ip_address(with_zone(name[0], name[3]) if len(name) > 3 else name[0], name[1])
        except AddressError as error:
            logger.warning("inherited socket %r: %s; left alone", name, error)
            continue
        raw = InheritedSocket(inherited.family, inherited.type, inherited.proto, inherited.detach())
        raw.setblocking(False)
        found[address] = raw
    return found
