"""From a file's bytes to candidates. No I/O; for a thread, because a long file takes a while.

The text is strict YAML (of which JSON is a part), and its shape must be one of those that `documents` reads; beyond that, a key
nobody knows is an error with its place: in a file it is a typing error, and `wieght: 3` must not pass silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.documents import read_document
from lbproxy.discovery.file.quick import read_json
from lbproxy.domain.errors import RegistryError
from lbproxy.wire import yaml
from lbproxy.wire.breathing import Breathing

LIMIT_BYTES: Final = 8 << 20  # 100,000 plain addresses are 2 MiB

_ENTRY: Final = ("address", "port", "weight", "zone", "priority", "max_connections", "metadata")
_GROUP: Final = ("targets", "labels")


def parse(data: bytes, name: str) -> tuple[Candidate, ...]:
    """Every endpoint of the file. Raises RegistryError, which names the place, for what is not wholly a list of endpoints; a value that
    makes no sense makes one candidate that will be refused."""
    if not data.strip():
        raise RegistryError(f"{name}:1:1: the file is empty; write [] for no endpoints")
    found: list[Candidate] = []
    breathe = Breathing()

    def take(entry: Any) -> None:
        found.extend(read_document([entry]))
        breathe()

    if data[:1] in {b"[", b"{"}:
        if read_json(data, _is_known, take):
            return tuple(found)
        found.clear()
    _read_yaml(data, name, take)
    return tuple(found)


def _read_yaml(data: bytes, name: str, take: Callable[[Any], None]) -> None:
    """Raises RegistryError."""

    def take_node(entry: yaml.Node) -> None:
        _check(entry)
        take(_plain(entry))

    parsed = yaml.parse(data, name, LIMIT_BYTES, take_node)
    if parsed.problems:
        raise _refused(parsed.problems[0].mark, parsed.problems[0].what)
    root = parsed.root
    if isinstance(root, yaml.MapNode):
        _known_keys(root, ("endpoints",))
        if "endpoints" not in root.entries:
            raise _refused(root.mark, "expected a list of endpoints, or a mapping with the key endpoints")
        root = root.entries["endpoints"]
    if not isinstance(root, yaml.ListNode):
        raise _refused(root.mark if root else yaml.Mark(name, 1, 1), "expected a list of endpoints")


def _is_known(entry: dict[str, Any]) -> bool:
    """Whether every key of an entry is one, and it has what an entry must have: as `_check`, without a place."""
    if "targets" in entry:
        return entry["targets"] is not None and not entry.keys() - set(_GROUP)
    return "address" in entry and not entry.keys() - set(_ENTRY)


def _check(entry: yaml.Node) -> None:
    """Raises RegistryError for an entry whose shape is wrong."""
    if isinstance(entry, yaml.ListNode):
        raise _refused(entry.mark, "expected host:port or a mapping, got a list")
    if not isinstance(entry, yaml.MapNode):
        return
    _known_keys(entry, _GROUP if "targets" in entry.entries else _ENTRY)
    if "targets" not in entry.entries and "address" not in entry.entries:
        raise _refused(entry.mark, "an entry without an address")
    for key, value in entry.entries.items():
        wanted: type[yaml.Node] = yaml.ScalarNode
        if key == "targets":
            wanted = yaml.ListNode
        elif key in {"labels", "metadata"}:
            wanted = yaml.MapNode
        if not isinstance(value, wanted) and not _is_nothing(value):
            raise _refused(value.mark, f"{key}: expected {_KINDS[wanted]}")
        below = value.items if isinstance(value, yaml.ListNode) else ()
        inner = value.entries.values() if isinstance(value, yaml.MapNode) else below
        for each in inner:
            if not isinstance(each, yaml.ScalarNode):
                raise _refused(each.mark, f"{key}: expected text")


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value is None


_KINDS: Final[dict[type[yaml.Node], str]] = {
    yaml.ScalarNode: "one value",
    yaml.ListNode: "a list",
    yaml.MapNode: "a mapping",
}


def _known_keys(node: yaml.MapNode, known: tuple[str, ...]) -> None:
    for key, mark in node.keys.items():
        if key not in known:
            raise _refused(mark, f"unknown key {key[:60]!r}; known here: {', '.join(known)}")


def _refused(mark: yaml.Mark, what: str) -> RegistryError:
    return RegistryError(f"{mark}: {what}")


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MapNode):
        return {key: _plain(value) for key, value in node.entries.items()}
    if isinstance(node, yaml.ListNode):
        return [_plain(item) for item in node.items]
    return node.value
