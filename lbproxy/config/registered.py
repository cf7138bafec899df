"""What no single key of `registration` can be blamed for: listeners that must exist and have a port, ids that must not meet.

Works on plain data, as references.py does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lbproxy.config.errors import did_you_mean
from lbproxy.config.expand import Expanded
from lbproxy.domain.address import Address, AddressError, parse_address
from lbproxy.wire.yaml import Path, Problem


def check(
    data: Mapping[str, Any], expanded: Expanded, listeners: Mapping[str, Any], *, known: bool
) -> Iterator[Problem]:
    """Problems. Not `known`: what is missing among the listeners may stand where nothing could be read."""
    seen: dict[tuple[object, ...], Path] = {}
    for path, service in _services(data):
        name = service.get("listener")
        where: Path = (*path, "listener")
        if isinstance(name, str) and known and where not in expanded.spoiled:
            if name not in listeners:
                what = f"there is no listener '{name}'{did_you_mean(name, listeners)}"
                yield Problem(expanded.values[where], where, what)
            elif service.get("port") is None and _binds(listeners[name]) == []:
                what = f"listener '{name}' has no port: it binds unix sockets only"
                yield Problem(expanded.values[where], where, what)
        given = service.get("id", "auto")
        place = (service.get("name"), name, service.get("address"), service.get("port"))
        key: tuple[object, ...] = place if given == "auto" else (given,)
        if all(isinstance(part, str | int | None) for part in key):
            first = seen.setdefault(key, path)
            if first != path:
                what = f"the same id as the service at {expanded.values[first]}"
                yield Problem(expanded.values[path], path, what)


def warnings(data: Mapping[str, Any], expanded: Expanded, listeners: Mapping[str, Any]) -> Iterator[str]:
    """Lines for what is allowed and seldom meant."""
    for path, service in _services(data):
        binds = _binds(listeners.get(str(service.get("listener"))))
        if service.get("address") is None and binds and _loopback(binds[0]):
            yield (
                f"{expanded.values[path]}: registration.services[{path[-1]}]: {binds[0].host} is registered, which other machines"
                " cannot reach: name an address, or bind another one"
            )


def _services(data: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    section = data.get("registration")
    services = section.get("services") if isinstance(section, dict) else None
    for index, service in enumerate(services if isinstance(services, list) else ()):
        if isinstance(service, dict):
            yield ("registration", "services", index), service


def _binds(listener: object) -> list[Address]:
    """The addresses with a port, as far as they can be read; the first of them is what is registered."""
    bind = listener.get("bind") if isinstance(listener, dict) else None
    found = []
    for text in bind if isinstance(bind, list) else [bind]:
        try:
            found.append(parse_address(text) if isinstance(text, str) else Address("", 0, "inet"))
        except AddressError:
            found.append(Address("", 0, "inet"))  # told by the model
    return [address for address in found if address.family != "unix"]


def _loopback(address: Address) -> bool:
    return address.host == "::1" or address.host.startswith("127.")
