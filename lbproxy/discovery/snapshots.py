"""The state on disk: what each source last said, for a start while its registry is down. One small JSON file a source."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from lbproxy.domain.address import AddressError, normalise_ip, parse_address
from lbproxy.domain.membership import Member, Membership

VERSION: Final = 1
MAX_BYTES: Final = 64 << 20


class SnapshotError(Exception):
    """The file is there and cannot be used; the message names it and says why."""


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
        """None if there is nothing. Raises SnapshotError."""
        path = self._path(upstream, source)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SnapshotError(f"{path}: {error.strerror}") from error
        if len(data) > MAX_BYTES:
            raise SnapshotError(f"{path}: longer than {MAX_BYTES} bytes")
        try:
            document = json.loads(data)
            if document["version"] != VERSION:
                raise SnapshotError(f"{path}: of version {document['version']!r}, not {VERSION}")
            members = tuple(_member(each) for each in document["members"])
            names = {
                str(name): tuple(normalise_ip(str(ip)) for ip in ips)
                for name, ips in document.get("names", {}).items()
            }
            subject = str(document.get("subject", ""))
            return Saved(Membership.of(members), float(document["saved_at"]), subject, names)
        except (ValueError, TypeError, KeyError, AttributeError, AddressError, RecursionError) as error:
            raise SnapshotError(f"{path}: not what was written there: {error!r}") from error

    def exists(self, upstream: str, source: str) -> bool:
        """Whether there is something to load, be it of use or not."""
        return self._path(upstream, source).exists()

    def save(self, upstream: str, source: str, saved: Saved) -> None:
        """Whole or not at all, also when the machine stops meanwhile. Raises OSError."""
        path = self._path(upstream, source)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {
            "version": VERSION,
            "upstream": upstream,
            "source": source,
            "subject": saved.subject,
            "saved_at": saved.saved_at,
            "names": {name: list(ips) for name, ips in saved.names.items()},
            "members": [_plain(member) for member in saved.membership.members],
        }
        # A name of its own for each try: two processes may share the folder, each of them number 1 of its container.
        descriptor, written = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        new = Path(written)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise

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
