"""What no single key can be blamed for: names that must exist, addresses that must not meet, secrets that must not be seen.

Works on plain data, so that it can speak even when other parts of the file are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from lbproxy.admin.options import AdminOptions
from lbproxy.config import registered
from lbproxy.config.errors import did_you_mean
from lbproxy.config.expand import Expanded, is_secret
from lbproxy.domain.address import Address, AddressError, HostName, ip_address, parse_address, parse_target
from lbproxy.wire.yaml import Path, Problem

IsLocal = Callable[[str], bool]

_SUGGESTIONS: Final = 20


@dataclass(frozen=True, slots=True)
class _Place:
    """A bind of ours: where it stands and what it belongs to. `dual`: a listener's [::], which takes IPv4, too."""

    path: Path
    owner: str
    address: Address
    dual: bool = False


def check(expanded: Expanded, is_local: IsLocal, *, complete: bool = True) -> tuple[list[Problem], list[str]]:
    """Problems, and warnings (an upstream that nothing uses). Not `complete`: an upstream that is named and missing may
    stand in a file that could not be read."""
    data = expanded.data
    if not isinstance(data, dict):
        return [], []
    listeners, upstreams = _mapping(data, "listeners"), _mapping(data, "upstreams")
    problems = [*_literal_secrets(data, expanded), *_admin(data, expanded)]
    if "listeners" in data and isinstance(data["listeners"], dict) and not listeners:
        problems.append(
            Problem(expanded.values["listeners",], ("listeners",), "no listener: there is nothing to serve")
        )
    used = set()
    # Where the upstreams themselves are wrong, nothing can be said about a name.
    known = (
        complete and ("upstreams",) not in expanded.spoiled and isinstance(data.get("upstreams", {}), dict)
    )
    for name, listener in listeners.items():
        upstream = listener.get("upstream") if isinstance(listener, dict) else None
        if isinstance(upstream, str):
            used.add(upstream)
            path: Path = ("listeners", name, "upstream")
            if known and upstream not in upstreams and path not in expanded.spoiled:
                # Comparing every name with every other is slow; the first few show what happened.
                near = did_you_mean(upstream, upstreams) if len(problems) < _SUGGESTIONS else ""
                what = f"there is no upstream '{upstream}'{near}"
                problems.append(Problem(expanded.values[path], path, what))
    problems += registered.check(
        data, expanded, listeners, known=complete and ("listeners",) not in expanded.spoiled
    )
    places = _with_dual([*(_unsaid_admin(data) if complete else ()), *_places(data, listeners)])
    problems += _meeting(places, expanded)
    for name, upstream in upstreams.items():
        if isinstance(upstream, dict):
            problems += _upstream(name, upstream, places, expanded, is_local)
    warnings = [
        f"{expanded.values['upstreams', name]}: upstreams.{name}: no listener uses it"
        for name in upstreams
        if name not in used
    ]
    warnings += [
        f"{expanded.values['upstreams', name]}: upstreams.{name}: every endpoint has weight 0: it takes no new sessions"
        for name, upstream in upstreams.items()
        if _weighs_nothing(upstream)
    ]
    warnings += registered.warnings(data, expanded, listeners)
    return problems, warnings


def _weighs_nothing(upstream: object) -> bool:
    endpoints = upstream.get("endpoints") if isinstance(upstream, dict) else None
    if not isinstance(endpoints, list) or not endpoints:
        return False
    return all(isinstance(each, dict) and each.get("weight") == 0 for each in endpoints)


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _unsaid_admin(data: dict[str, Any]) -> Iterator[_Place]:
    """The admin interface is bound without being mentioned, too."""
    admin = data.get("admin", {})
    if isinstance(admin, dict) and "bind" not in admin:
        yield _Place(("admin", "bind"), "admin.bind", AdminOptions().bind)


def _places(data: dict[str, Any], listeners: dict[str, Any]) -> Iterator[_Place]:
    for name, listener in listeners.items():
        bind = listener.get("bind") if isinstance(listener, dict) else None
        path: Path = ("listeners", name, "bind")
        for each, text in (
            [((*path, i), item) for i, item in enumerate(bind)] if isinstance(bind, list) else [(path, bind)]
        ):
            yield from _place(each, f"listener {name}", text)
    admin = _mapping(data, "admin")
    for key in ("bind", "metrics_bind"):
        if key in admin:
            yield from _place(("admin", key), f"admin.{key}", admin[key])


def _with_dual(places: list[_Place]) -> list[_Place]:
    """As listeners are bound: [::] leaves IPv4 alone only where a listener has 0.0.0.0 on that port."""
    taken = {each.address.port for each in places if each.address.host == "0.0.0.0"}  # noqa: S104 - compared, not bound
    return [
        replace(each, dual=True)
        if each.path[0] == "listeners" and each.address.host == "::" and each.address.port not in taken
        else each
        for each in places
    ]


def _place(path: Path, owner: str, text: object) -> Iterator[_Place]:
    if isinstance(text, str):
        try:
            yield _Place(path, owner, parse_address(text))
        except AddressError:
            return  # told by the model


def _meeting(places: list[_Place], expanded: Expanded) -> Iterator[Problem]:
    by_port: dict[
        int, list[_Place]
    ] = {}  # only these can meet: thousands of listeners are not compared pair by pair
    for place in places:
        before = by_port.setdefault(place.address.port, [])
        before.append(place)
        for earlier in before[:-1]:
            if _meet(place, earlier):
                again = (
                    "is bound twice" if place.address == earlier.address else f"overlaps {earlier.address}"
                )
                where = expanded.values.get(earlier.path)
                what = f"{place.address} {again} (also by {earlier.owner}{f' at {where}' if where else ', by default'})"
                yield Problem(expanded.values[place.path], place.path, what)
                break


def _meet(first: _Place, second: _Place) -> bool:
    """Whether the kernel would refuse both at once."""
    one, other = first.address, second.address
    if one.port == 0 and one.family != "unix":
        return False  # the kernel's choice, never the same twice
    if one == other:
        return True
    if {one.family, other.family} == {"inet", "inet6"}:
        return one.port == other.port and (first.dual or second.dual)
    same_family = one.family == other.family != "unix"
    return same_family and one.port == other.port and (one.is_wildcard or other.is_wildcard)


def _upstream(
    name: str, upstream: dict[str, Any], places: list[_Place], expanded: Expanded, is_local: IsLocal
) -> Iterator[Problem]:
    path: Path = ("upstreams", name)
    if upstream.get("type") == "original_dst":
        for key in ("endpoints", "discovery", "strategy"):
            if upstream.get(key) is not None:
                yield Problem(
                    expanded.keys[*path, key],
                    (*path, key),
                    "an original_dst upstream dials where its client meant to go",
                )
        connect = upstream.get("connect")
        if isinstance(connect, dict) and connect.get("attempts", 1) != 1:
            where: Path = (*path, "connect", "attempts")
            yield Problem(
                expanded.values[where],
                where,
                "an original_dst upstream makes one attempt: there is nowhere else to go",
            )
        return
    yield from _pushed_twice(upstream.get("discovery"), (*path, "discovery"), expanded)
    endpoints = upstream.get("endpoints")
    if upstream.get("discovery") is not None and endpoints:
        where = (*path, "endpoints")
        yield Problem(expanded.keys[where], where, "either endpoints or discovery, not both")
    if not isinstance(endpoints, list) or not endpoints:
        told = upstream.get("discovery") is not None or upstream.get("type", "endpoints") != "endpoints"
        if not told and isinstance(upstream.get("endpoints", []), list):
            yield Problem(
                expanded.values[path],
                path,
                "no endpoints: name at least one, or a `discovery` that knows them",
            )
        return
    seen: dict[str, Path] = {}
    source = _source_family(upstream.get("connect"))
    for index, endpoint in enumerate(endpoints):
        text = endpoint.get("address") if isinstance(endpoint, dict) else endpoint
        here: Path = (*path, "endpoints", index)
        if isinstance(text, str):
            yield from _endpoint(text, here, seen, places, expanded, is_local)
            yield from _out_of_reach(text, here, source, expanded)


def _pushed_twice(sources: object, path: Path, expanded: Expanded) -> Iterator[Problem]:
    """Who registers does so with the upstream: which of two sources would be meant?"""
    if not isinstance(sources, list):
        return
    found = [
        index for index, each in enumerate(sources) if isinstance(each, dict) and each.get("type") == "push"
    ]
    for index in found[1:]:
        where: Path = (*path, index)
        yield Problem(expanded.values[where], where, "an upstream has one source of type push")


def _endpoint(
    text: str, path: Path, seen: dict[str, Path], places: list[_Place], expanded: Expanded, is_local: IsLocal
) -> Iterator[Problem]:
    try:
        target = parse_target(text)
    except AddressError:
        return  # told by the model
    mark = expanded.values[path]
    first = seen.setdefault(str(target), path)
    if first != path:
        yield Problem(mark, path, f"{target} is listed twice (first at {expanded.values[first]})")
    for place in places:
        if any(_reaches(each, place, is_local) for each in _dialled(target)):
            yield Problem(mark, path, f"{target} is our own {place.owner}: a loop")
            return


def _source_family(connect: object) -> str:
    """Of `connect.source`, "" where there is none of use."""
    source = connect.get("source") if isinstance(connect, dict) else None
    try:
        return ip_address(source, 0).family if isinstance(source, str) else ""
    except AddressError:
        return ""  # told by the model


def _out_of_reach(text: str, path: Path, source: str, expanded: Expanded) -> Iterator[Problem]:
    """What a host name resolves to is not known here; such a dial fails, and another address is tried."""
    try:
        target = parse_target(text)
    except AddressError:
        return  # told by the model
    if source and isinstance(target, Address) and target.family not in {"unix", source}:
        what = f"{target} cannot be dialled from connect.source: it is of another address family"
        yield Problem(expanded.values[path], path, what)


def _dialled(target: Address | HostName) -> tuple[Address, ...]:
    """The addresses behind a target, as far as they are known without a resolver (RFC 6761 fixes localhost)."""
    if isinstance(target, Address):
        return (target,)
    if target.name == "localhost" or target.name.endswith(".localhost"):
        return (Address("127.0.0.1", target.port, "inet"), Address("::1", target.port, "inet6"))
    return ()


def _reaches(target: Address, place: _Place, is_local: IsLocal) -> bool:
    """Whether a dial to `target` arrives at our bind."""
    own = place.address
    if own == target:
        return own.family == "unix" or own.port != 0
    family_fits = own.family == target.family or (place.dual and target.family == "inet")
    if not own.is_wildcard or not family_fits or own.port != target.port:
        return False
    return is_local(target.host)


def _literal_secrets(data: dict[str, Any], expanded: Expanded) -> Iterator[Problem]:
    if _mapping(data, "runtime").get("allow_literal_secrets") is True:
        return
    for path, mark in expanded.values.items():
        if is_secret(path) and path not in expanded.from_environment and _is_text(data, path):
            what = "a secret in the file itself: use ${VARIABLE} or {file: PATH} (or runtime.allow_literal_secrets: true)"
            yield Problem(mark, path, what)


def _is_text(data: Any, path: Path) -> bool:
    for part in path:
        data = data[part]
    return isinstance(data, str) and bool(data)


def _admin(data: dict[str, Any], expanded: Expanded) -> Iterator[Problem]:
    admin = _mapping(data, "admin")
    token = admin.get("token")
    for place in _place(("admin", "bind"), "admin", admin.get("bind")):
        if token is None and not _private(place.address):
            whom = "every user of this machine" if place.address.family == "unix" else "other machines"
            what = f"{place.address} can be reached by {whom}: set admin.token, or bind to loopback or unix:/path"
            yield Problem(expanded.values[place.path], place.path, what)


def _private(address: Address) -> bool:
    """Only this machine's users come here; an abstract socket has no mode that could choose among them."""
    if address.family == "unix":
        return not address.host.startswith("@")
    return address.host == "::1" or address.host.startswith("127.")
