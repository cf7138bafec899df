"""From what Consul says of a service's instances to candidates. Pure: the same answer gives the same candidates.

An instance is known by its node and its service id; of several on one address the one with the greatest weight stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from lbproxy.discovery.consul.options import ConsulOptions, Unwell
from lbproxy.discovery.contract import Candidate

ZONE: Final = "lbproxy-zone"
PRIORITY: Final = "lbproxy-priority"
WEIGHT: Final = "lbproxy-weight"
MAX_CONNECTIONS: Final = "lbproxy-max-connections"
_OURS: Final = frozenset({ZONE, PRIORITY, WEIGHT, MAX_CONNECTIONS})

# What Consul puts the checks' ids of its maintenance modes together from (agent/structs: NodeMaint, ServiceMaintPrefix).
_NODE_MAINTENANCE: Final = "_node_maintenance"
_SERVICE_MAINTENANCE: Final = "_service_maintenance:"
# The check by which Consul tells whether a node can be heard at all.
_NODE_ALIVE: Final = "serfHealth"

_BAD: Final = -1  # refused, and counted, by whoever vets the candidate
# What is kept of an instance's own metadata and tags, so that an instance with much to say is not refused for it.
_MAX_METADATA: Final = 60
_MAX_TEXT: Final = 1000

Key = tuple[str, str]
Known = Mapping[Key, Candidate]
_NOTHING: Final[Known] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Standing:
    """How an instance stands: `status` is passing, warning, critical, maintenance or lost; `reason` why, "" for passing."""

    status: str
    reason: str = ""


class Instances:
    """Collects one answer's entries, one after the other, and gives the candidates in an order that only changes with them.

    `before` are those of the last answer: what has not changed is the same object again, so that ten thousand instances of which one
    changed cost neither memory nor comparisons later on.
    """

    def __init__(self, options: ConsulOptions, before: Known = _NOTHING) -> None:
        self._options = options
        self._before = before
        self._found: dict[tuple[str, int], tuple[Key, Candidate]] = {}
        self._refused: list[tuple[Key, Candidate]] = []
        self.known: dict[Key, Candidate] = {}  # for the next answer
        self._last: Key = ("", "")
        self._in_order = True

    def add(self, entry: object) -> None:
        """Take one element of Consul's list, whatever it is. One that cannot be understood becomes a candidate that is refused."""
        read = _read(entry, self._options)
        if read is None:
            return
        key, candidate = read
        if not _sound(candidate):
            self._refused.append(read)
            return
        known = self._before.get(key)
        if known is not None and known == candidate:
            read = key, known
        self.known[key] = read[1]
        where = candidate.host, candidate.port
        before = self._found.get(where)
        if before is None or _better(read, before):
            self._found[where] = read
            self._in_order = self._in_order and before is None and self._last < key
            self._last = key

    def candidates(self) -> tuple[Candidate, ...]:
        pairs: Sequence[tuple[Key, Candidate]] = [*self._found.values(), *self._refused]
        # With `near` the order is what Consul was asked for; and usually it is by node and id already.
        if not self._options.near and (self._refused or not self._in_order):
            pairs = sorted(pairs, key=lambda pair: pair[0])
        return tuple([candidate for _, candidate in pairs])


def _sound(candidate: Candidate) -> bool:
    return _BAD not in {candidate.port, candidate.weight, candidate.priority, candidate.max_connections}


def _better(one: tuple[Key, Candidate], other: tuple[Key, Candidate]) -> bool:
    """More weight is better, then the smaller key: an old registration that died beside a new one takes nothing away."""
    if one[1].weight != other[1].weight:
        return one[1].weight > other[1].weight
    return one[0] < other[0]


def _read(entry: object, options: ConsulOptions) -> tuple[Key, Candidate] | None:
    """None for an instance that counts as gone."""
    node, service = _part(entry, "Node"), _part(entry, "Service")
    if node is None or service is None:
        return ("", ""), Candidate("", _BAD)
    key = _text(node, "Node"), _text(service, "ID")
    standing = stand(_list(entry, "Checks"))
    treatment = _treatment(standing, options)
    if treatment == "remove":
        return None
    said = _said(service)
    weight = 0 if treatment == "drain" else _weight(service, said, standing)
    host, port = _address(node, service, options.address_from)
    most = said.get(MAX_CONNECTIONS)
    return key, Candidate(
        host,
        port,
        weight,
        _number(said.get(PRIORITY), 0),
        _zone(node, service, said),
        None if most is None else _number(most, 0),
        _metadata(key, service, standing),
    )


def _treatment(standing: Standing, options: ConsulOptions) -> Unwell:
    if standing.status == "lost":
        return "use" if options.critical == "use" else "remove"
    if standing.status == "maintenance":
        return "drain"
    if standing.status == "critical":
        return options.critical
    return options.warning if standing.status == "warning" else "use"


def stand(checks: Iterable[object]) -> Standing:
    """What an instance's checks say together, the worst first: its node is lost; maintenance; critical; warning. A status that is none
    of Consul's is taken for critical."""
    maintenance = critical = warning = None
    for check in checks:
        if not isinstance(check, Mapping):
            return Standing("critical", "a check that nobody can read")
        status = _text(check, "Status")
        if status == "passing":
            continue
        name = _text(check, "CheckID")
        if name == _NODE_ALIVE and status == "critical":
            return Standing("lost", "its node is not heard of any more")
        if name == _NODE_MAINTENANCE or name.startswith(_SERVICE_MAINTENANCE):
            maintenance = maintenance or Standing("maintenance", _text(check, "Notes") or "maintenance mode")
        elif status == "warning":
            warning = warning or Standing("warning", f"check {_text(check, 'Name') or name} warns")
        else:
            critical = critical or Standing("critical", f"check {_text(check, 'Name') or name} is {status}")
    return maintenance or critical or warning or Standing("passing")


def _said(service: Mapping[str, Any]) -> dict[str, str]:
    """Our keys: of tags (`lbproxy-zone=a`), and of the service's metadata, which goes before."""
    found: dict[str, str] = {}
    for tag in _list(service, "Tags"):
        if isinstance(tag, str) and tag.startswith("lbproxy-"):
            name, equals, value = tag.partition("=")
            if equals and name in _OURS:
                found[name] = value
    meta = _part(service, "Meta") or {}
    found.update((name, meta[name]) for name in _OURS if isinstance(meta.get(name), str))
    return found


def _weight(service: Mapping[str, Any], said: Mapping[str, str], standing: Standing) -> int:
    weights = _part(service, "Weights") or {}
    if standing.status == "warning":
        return _count(weights.get("Warning", 1))
    if WEIGHT in said:
        return _number(said[WEIGHT], 1)
    return _count(weights.get("Passing", 1))


def _address(node: Mapping[str, Any], service: Mapping[str, Any], tag: str) -> tuple[str, int]:
    """As Consul itself translates addresses: the service's tagged address, the service's own, the node's tagged one, the node's."""
    port = _count(service.get("Port"))
    if tag != "service":
        tagged = _part(_part(service, "TaggedAddresses") or {}, tag) or {}
        if _text(tagged, "Address"):
            return _text(tagged, "Address"), _count(tagged.get("Port")) or port
    own = _text(service, "Address")
    if own:
        return own, port
    of_node = _text(_part(node, "TaggedAddresses") or {}, tag) if tag != "service" else ""
    return of_node or _text(node, "Address"), port


def _zone(node: Mapping[str, Any], service: Mapping[str, Any], said: Mapping[str, str]) -> str | None:
    """The instance's word, its node's, or where Consul 1.15 and later know them to be."""
    return (
        said.get(ZONE)
        or _text(_part(node, "Meta") or {}, ZONE)
        or _text(_part(service, "Locality") or {}, "Zone")
        or _text(_part(node, "Locality") or {}, "Zone")
        or None
    )


def _metadata(key: Key, service: Mapping[str, Any], standing: Standing) -> dict[str, str]:
    """The instance's own metadata, and under `consul-` what Consul knows of it. What changes with every check is not in it."""
    found = {
        name: value
        for name, value in (_part(service, "Meta") or {}).items()
        if isinstance(value, str) and name not in _OURS
    }
    for name in sorted(found)[_MAX_METADATA:]:
        del found[name]
    found["consul-node"], found["consul-id"] = key
    tags = [tag for tag in _list(service, "Tags") if isinstance(tag, str)]
    if tags:
        found["consul-tags"] = _shortened(",".join(tags))
    if standing.status != "passing":
        found["consul-status"] = f"{standing.status}: {standing.reason}"[:_MAX_TEXT]
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _part(of: object, name: str) -> Mapping[str, Any] | None:
    found = of.get(name) if isinstance(of, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _list(of: object, name: str) -> list[object]:
    found = of.get(name) if isinstance(of, Mapping) else None
    return found if isinstance(found, list) else []


def _text(of: Mapping[str, Any], name: str) -> str:
    found = of.get(name)
    return found if isinstance(found, str) else ""


def _count(given: object) -> int:
    """A JSON number as an int; -1 for what is none."""
    return given if isinstance(given, int) and not isinstance(given, bool) else _BAD


def _number(given: str | None, default: int) -> int:
    """Digits as an int; -1 for what is none."""
    if given is None:
        return default
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else _BAD
