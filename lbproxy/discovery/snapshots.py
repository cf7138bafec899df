"""The state on disk: what each source last said, for a start while its registry is down. One small JSON file a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from lbproxy.domain.address import normalise_ip, parse_address
from lbproxy.domain.membership import Member, Membership
from lbproxy.wire import state

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """`saved_at` is in seconds of the wall clock. `subject` is what the source followed (DiscoveryOptions); `names` are the last good
    addresses of the host names that it told."""

    membership: Membership
    saved_at: float
    subject: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Snapshots:
    """The files of one folder, made when the first one is written. Both methods block: `save` belongs into a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, upstream: str, source: str) -> Saved | None:
        """None if there is nothing. Raises StateError."""
        path = self._path(upstream, source)
        document = state.read(path, VERSION)
        if document is None:
            return None
        with state.as_written(path):
            members = tuple(_member(each) for each in document["members"])
            names = {
                str(name): tuple(normalise_ip(str(ip)) for ip in ips)
                for name, ips in document.get("names", {}).items()
            }
            subject = str(document.get("subject", ""))
            return Saved(Membership.of(members), float(document["saved_at"]), subject, names)

    def exists(self, upstream: str, source: str) -> bool:
        """Whether there is something to load, be it of use or not."""
        return self._path(upstream, source).exists()

    def save(self, upstream: str, source: str, saved: Saved) -> None:
        """As `state.write`. Raises OSError."""
        document = {
            "upstream": upstream,
            "source": source,
            "subject": saved.subject,
            "saved_at": saved.saved_at,
            "names": {name: list(ips) for name, ips in saved.names.items()},
            "members": [_plain(member) for member in saved.membership.members],
        }
        state.write(self._path(upstream, source), VERSION, document)

    def _path(self, upstream: str, source: str) -> Path:
        return self._folder / f"{quote(upstream, safe='')}.{quote(source, safe='')}.json"


def unverified(membership: Membership) -> Membership:
    """As remembered, and by nobody confirmed."""
    return Membership(tuple(replace(member, unverified=True) for member in membership.members))


def _plain(member: Member) -> dict[str, Any]:
    return {
        "address": str(member.address),
        "weight": member.weight,
        "priority": member.priority,
        "zone": member.zone,
        "max_connections": member.max_connections,
        "metadata": dict(member.metadata),
    }


def _member(plain: dict[str, Any]) -> Member:
    zone, most = plain["zone"], plain["max_connections"]
    return Member(
        parse_address(plain["address"]),
        weight=int(plain["weight"]),
        priority=int(plain["priority"]),
        zone=None if zone is None else str(zone),
        max_connections=None if most is None else int(most),
        metadata={str(key): str(value) for key, value in plain["metadata"].items()},
    )
