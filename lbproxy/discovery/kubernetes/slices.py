"""From a service's EndpointSlices to endpoints. No I/O.

The API's own rules (discovery.k8s.io/v1, "EndpointSlices" in its documentation), and what is made of them here:

| the endpoint | here |
| --- | --- |
| ready (nothing said means ready) | weight 1 |
| not ready, terminating, still serving | weight 0: its sessions stay, it gets no new ones; but if no endpoint at all is ready, weight 1, as kube-proxy does (KEP-1669) |
| otherwise not ready | not there: whether that is a failing probe or a node that the control plane has lost sight of, a slice does not tell, so the guard against removals judges it |

- A slice is known by its name, and its UID tells it from a later one of that name. An endpoint may stand in two slices while the
  control plane moves it: the more usable entry counts.
- Of an endpoint's addresses the first counts: they are all the same endpoint.
- A service with IPv4 and IPv6 has each pod twice; `family` says which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.kubernetes.options import Family
from lbproxy.domain.errors import RegistryError

READY: Final = 0  # the smaller one is the more usable
DRAINING: Final = 1  # terminating, and still serving

_Endpoint = tuple[int, Candidate]
_Port = tuple[str, int]  # name and number
_FAMILIES: Final[Mapping[str, Family]] = {"IPv4": "ipv4", "IPv6": "ipv6"}


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one slice says. `family` is None for addresses that will be refused; `ports` are its TCP ports; `chosen`: the port that is
    asked for is one of them, and `endpoints` are at it."""

    uid: str
    family: Family | None
    ports: tuple[_Port, ...]
    chosen: bool
    endpoints: tuple[_Endpoint, ...]
    empty: bool


class Slices:
    """Every slice of the service by its name."""

    def __init__(self, port: str | int | None, family: Family) -> None:
        self._port = port
        self._family = family
        self._slices: dict[str, _Slice] = {}
        self._candidates: tuple[Candidate, ...] | None = None

    def put(self, told: Any) -> None:
        """A slice that was added or changed. Raises RegistryError for what is none."""
        name, uid = _identity(told)
        self._slices[name] = _read(told, uid, self._port)
        self._candidates = None

    def delete(self, told: Any) -> None:
        """A slice that is gone, unless there is a later one of its name by now. Raises RegistryError for what is none."""
        name, uid = _identity(told)
        known = self._slices.get(name)
        if known is not None and known.uid == uid:
            del self._slices[name]
            self._candidates = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every endpoint, in the order of the slices' names. Raises RegistryError where the port that is asked for is in no slice, or
        which one is meant is not clear."""
        if self._candidates is None:
            self._candidates = self._collect()
        return self._candidates

    def _collect(self) -> tuple[Candidate, ...]:
        slices = self._of_family([each for _, each in sorted(self._slices.items())])
        self._check_port([each for each in slices if not each.empty])
        best: dict[tuple[str, int], _Endpoint] = {}
        for each in slices:
            for endpoint in each.endpoints:
                key = endpoint[1].host, endpoint[1].port
                known = best.get(key)
                if known is None or endpoint[0] < known[0]:
                    best[key] = endpoint
        if any(state == READY for state, _ in best.values()):
            return tuple(candidate for _, candidate in best.values())
        return tuple(replace(candidate, weight=1) for _, candidate in best.values())

    def _of_family(self, slices: Sequence[_Slice]) -> list[_Slice]:
        wanted = self._family
        if wanted == "auto":
            wanted = "ipv4" if any(each.family == "ipv4" and not each.empty for each in slices) else "ipv6"
        return [each for each in slices if each.family in {wanted, None}]

    def _check_port(self, slices: Sequence[_Slice]) -> None:
        """Raises RegistryError: a wrong port in the configuration must not look like a service without endpoints."""
        names = {name for each in slices for name, _ in each.ports}
        if not slices or (
            any(each.chosen for each in slices) and (self._port is not None or len(names) == 1)
        ):
            return
        shown = ", ".join(sorted({name or str(number) for each in slices for name, number in each.ports}))
        if self._port is None:
            raise RegistryError(
                f"the endpoints have not one TCP port, but: {shown or 'none'}; say which by `port`"
            )
        raise RegistryError(f"the endpoints have no TCP port {self._port!r}, but: {shown or 'none'}")


def _identity(told: Any) -> tuple[str, str]:
    metadata = told.get("metadata") if isinstance(told, Mapping) else None
    if isinstance(metadata, Mapping):
        name, uid = metadata.get("name"), metadata.get("uid", "")
        if isinstance(name, str) and name and isinstance(uid, str):
            return name, uid
    raise RegistryError("an EndpointSlice without a name")


def _read(told: Mapping[str, Any], uid: str, wanted: str | int | None) -> _Slice:
    kind = told.get("addressType")
    if not isinstance(kind, str):
        raise RegistryError("an EndpointSlice without an addressType")
    family, ports, endpoints = _FAMILIES.get(kind), _ports(_list(told, "ports")), _list(told, "endpoints")
    number = _number(ports, wanted, every=told.get("ports") is None)
    found: tuple[_Endpoint, ...] = ()
    if number is not None:
        read = (_endpoint(each, number, dialable=family is not None) for each in endpoints)
        found = tuple(each for each in read if each is not None)
    return _Slice(uid, family, ports, number is not None, found, not endpoints)


def _list(told: Mapping[str, Any], name: str) -> list[Any]:
    found = told.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise RegistryError(f"an EndpointSlice whose {name} are no list")
    return found


def _ports(told: list[Any]) -> tuple[_Port, ...]:
    """Those of TCP. A number that nobody can read is -1: it must not hide the slice, whose endpoints are refused one by one."""
    found: list[_Port] = []
    for each in told:
        if isinstance(each, Mapping) and (each.get("protocol") or "TCP") == "TCP":
            name, number = each.get("name"), each.get("port")
            if not isinstance(number, int) or isinstance(number, bool):
                number = -1
            found.append((name if isinstance(name, str) else "", number))
    return tuple(found)


def _number(ports: tuple[_Port, ...], wanted: str | int | None, *, every: bool) -> int | None:
    """The number that is meant; None: it is not among them. `every`: a slice that names no ports has all of them."""
    if isinstance(wanted, int):
        return wanted if every or any(number == wanted for _, number in ports) else None
    if wanted is None:
        return ports[0][1] if len(ports) == 1 else None
    return next((number for name, number in ports if name == wanted), None)


def _endpoint(told: Any, port: int, *, dialable: bool) -> _Endpoint | None:
    if not isinstance(told, Mapping):
        return READY, Candidate("", port)  # to be refused
    state = _state(told.get("conditions"))
    if state is None:
        return None
    addresses = told.get("addresses")
    first = addresses[0] if isinstance(addresses, list) and addresses else ""
    host = first if dialable and isinstance(first, str) else ""  # an empty host is refused
    zone = told.get("zone")
    weight = 1 if state == READY else 0
    return state, Candidate(
        host, port, weight, zone=zone if isinstance(zone, str) and zone else None, metadata=_metadata(told)
    )


def _state(conditions: Any) -> int | None:
    """None for one that is not to be used."""
    if not isinstance(conditions, Mapping):
        return READY
    ready = conditions.get("ready")
    if ready is None or ready is True:
        return READY
    leaving = conditions.get("terminating") is True and conditions.get("serving") is True
    return DRAINING if leaving else None


def _metadata(told: Mapping[str, Any]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    node, target = told.get("nodeName"), told.get("targetRef")
    if isinstance(node, str) and node:
        found["kubernetes-node"] = node
    if isinstance(target, Mapping) and isinstance(target.get("name"), str):
        kind = target.get("kind")
        found[f"kubernetes-{kind.lower() if isinstance(kind, str) and kind else 'target'}"] = target["name"]
    return MappingProxyType(found)
