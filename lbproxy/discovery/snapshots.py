"""The state on disk: what each source last said, for a start while its registry is down. One small JSON file a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from lbproxy.domain.address import normalise_ip, parse_address
from lbproxy.domain.membership import Member, Membership
from lbproxy.wire import state
from lbproxy.wire.breathing import Breathing
from lbproxy.wire.state import StateError

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """`saved_at` is in seconds of the wall clock. `subject` is what the source followed (DiscoveryOptions); `names` are the last good
    addresses of the host names that it told."""

    membership: Membership
    saved_at: float
    subject: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Recalled = Mapping[tuple[str, str], Saved | StateError | None]
"""What was found for each (upstream, source), or why it is of no use."""


class Snapshots:
    """The files of one folder, made when the first one is written. `load`, `recall` and `save` block: beside a loop that serves, they
    belong into a thread (of 10,000 endpoints, reading takes 0.1 s)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recalled: Recalled = {}

    def recall(self, wanted: Iterable[tuple[str, str]]) -> Recalled:
        """What `load` is going to be asked for, (upstream, source) each; for a thread that leaves the loop its turns."""
        pause = Breathing()
        return {each: self._try(*each, pause) for each in wanted}

    @contextmanager
    def recalled(self, known: Recalled) -> Iterator[None]:
        """Until the end of the block, `load` reads nothing that is known here. For a block that is one step of the loop."""
        self._recalled = known
        try:
            yield
        finally:
            self._recalled = {}

    def load(self, upstream: str, source: str) -> Saved | None:
        """What is remembered, each member marked as unverified; None if there is nothing. Raises StateError."""
        at = (upstream, source)
        found = self._recalled[at] if at in self._recalled else self._try(upstream, source, lambda: None)
        if isinstance(found, StateError):
            raise found
        return found

    def _try(self, upstream: str, source: str, pause: Callable[[], None]) -> Saved | StateError | None:
        try:
            return self._read(self._path(upstream, source), pause)
        except StateError as error:
            return error

    def _read(self, path: Path, pause: Callable[[], None]) -> Saved | None:
        document = state.read(path, VERSION, pause)
        if document is None:
            return None
        with state.as_written(path):
            members = []
            for each in document["members"]:
                members.append(_member(each))
                pause()
            names = {
                str(name): tuple(normalise_ip(str(ip)) for ip in ips)
                for name, ips in document.get("names", {}).items()
            }
            subject = str(document.get("subject", ""))
            return Saved(Membership.of(tuple(members)), float(document["saved_at"]), subject, names)

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
        unverified=True,
    )
