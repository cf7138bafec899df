"""Several files as one tree: listeners and upstreams come together by name, sections by key; nothing may be given twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lbproxy.config.kv.documents import Documents, is_remote
from lbproxy.wire import yaml

_SUFFIXES: Final = (".yaml", ".yml")
_MERGED: Final = frozenset({"runtime", "admin", "log", "metrics", "registration", "listeners", "upstreams"})


Remote = Mapping[str, Documents | str]
"""What was read for each `consul:KEY`, or why nothing could be."""

NOTHING: Final[Remote] = MappingProxyType({})


def read(paths: Sequence[str | Path], remote: Remote = NOTHING) -> yaml.Parsed:
    """Read files, folders' YAML files in order of their names, and the `remote` texts. Never raises: what is wrong is in the
    answer."""
    problems: list[yaml.Problem] = []
    if not paths:
        problems.append(_unreadable(Path("-"), "no configuration file was named"))
    parsed: list[yaml.Parsed] = []
    for given in paths:
        if is_remote(given):
            found = remote.get(str(given), "it was not read from Consul")
            if isinstance(found, str):
                problems.append(_unreadable(given, found))
            else:
                parsed += [yaml.parse(data, name) for name, data in found.parts]
            continue
        for path in _files(Path(given), problems):
            try:
                with path.open("rb") as file:
                    data = file.read(yaml.MAX_BYTES + 1)
            except OSError as error:
                problems.append(_unreadable(path, error.strerror or str(error)))
            else:
                parsed.append(yaml.parse(data, str(path)))
    return merge(parsed, problems)


def _files(path: Path, problems: list[yaml.Problem]) -> Iterable[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(
            each for each in path.iterdir() if each.suffix in _SUFFIXES and not each.name.startswith(".")
        )
    except OSError as error:
        problems.append(_unreadable(path, error.strerror or str(error)))
        return []
    if not found:
        problems.append(_unreadable(path, "the folder holds no *.yaml file"))
    return found


def _unreadable(path: str | Path, what: str) -> yaml.Problem:
    return yaml.Problem(yaml.Mark(str(path), 1, 1), (), what)


def merge(parsed: Iterable[yaml.Parsed], problems: list[yaml.Problem]) -> yaml.Parsed:
    """One tree of many; `problems` are those met before."""
    root: yaml.MapNode | None = None
    spoiled: set[yaml.Path] = set()
    complete = not problems
    for each in parsed:
        problems += each.problems
        spoiled |= each.spoiled
        complete = complete and each.complete
        if each.root is None:
            continue
        if not isinstance(each.root, yaml.MapNode):
            problems.append(yaml.Problem(each.root.mark, (), "expected a mapping at the top of the file"))
        elif root is None:
            root = each.root
        else:
            _merge_into(root, each.root, (), problems)
    return yaml.Parsed(root, tuple(problems), frozenset(spoiled), complete)


def _merge_into(
    into: yaml.MapNode, other: yaml.MapNode, path: yaml.Path, problems: list[yaml.Problem]
) -> None:
    for key, node in other.entries.items():
        here = into.entries.get(key)
        if here is None:
            into.entries[key] = node
            into.keys[key] = other.keys[key]
        elif (
            not path and key in _MERGED and isinstance(here, yaml.MapNode) and isinstance(node, yaml.MapNode)
        ):
            _merge_into(here, node, (key,), problems)
        else:
            problems.append(
                yaml.Problem(other.keys[key], (*path, key), f"given twice (first at {into.keys[key]})")
            )
