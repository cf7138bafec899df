"""From the tree to plain data: `${VARIABLE}` replaced in scalars, paths made absolute, secrets kept as text.

Replacement happens after parsing, so a variable's text can never become structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lbproxy.config.kv.documents import is_remote
from lbproxy.wire import yaml

Tree = dict[yaml.Path, yaml.Mark]

# A default ends before another `${`: nesting is refused, and no text is walked twice.
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^}$]|\$(?!\{))*))?\})?")
# Keys that mean the same wherever they stand in these sections: a secret, or a path that counts from the file's own folder.
_SECRET_KEYS: Final = frozenset({"token", "password"})
_PATH_KEYS: Final = frozenset({"file", "path", "ca", "certificate", "key"})
# Kinds of sources whose `path` is one within the registry.
_PATH_ELSEWHERE: Final = frozenset({"zookeeper"})
_STATE_DIR: Final[yaml.Path] = ("runtime", "state_dir")
_KEYWORDS: Final = frozenset({"auto"})


def is_secret(path: yaml.Path) -> bool:
    """Whether a secret is due here: text, or {file: PATH}."""
    if path == ("registration", "token"):
        return True
    return bool(path) and path[-1] in _SECRET_KEYS and (path[0] == "admin" or _in_discovery(path))


def _is_path(path: yaml.Path) -> bool:
    if path == _STATE_DIR or (len(path) > 2 and path[-1] == "file" and is_secret(path[:-1])):
        return True
    if path[:2] == ("registration", "tls"):
        return path[-1] in _PATH_KEYS
    return _in_discovery(path) and path[-1] in _PATH_KEYS


def _in_discovery(path: yaml.Path) -> bool:
    """A key of a source; the names of HTTP headers are not keys of ours."""
    return len(path) > 3 and path[0] == "upstreams" and path[2] == "discovery" and path[-2] != "headers"


class Expanded:
    """Plain data with the place of every value and key, what went wrong, and which scalars are wholly from the environment:
    `${NAME}` alone, without a default, which would stand in the file."""

    def __init__(self, root: yaml.Node, environ: Mapping[str, str]) -> None:
        self.values: Tree = {}
        self.keys: Tree = {}
        self.problems: list[yaml.Problem] = []
        self.spoiled: set[yaml.Path] = set()
        self.from_environment: set[yaml.Path] = set()
        self._environ = environ
        self._no_files: set[yaml.Path] = set()
        self.data: Any = self._plain(root, ())

    def _plain(self, node: yaml.Node, path: yaml.Path) -> Any:
        self.values[path] = node.mark
        if isinstance(node, yaml.ListNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.items)]
        if isinstance(node, yaml.MapNode):
            for key, mark in node.keys.items():
                self.keys[*path, key] = mark
            kind = node.entries.get("type")
            if isinstance(kind, yaml.ScalarNode) and kind.value in _PATH_ELSEWHERE:
                self._no_files.add((*path, "path"))
            return {key: self._plain(value, (*path, key)) for key, value in node.entries.items()}
        return self._scalar(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: yaml.Path) -> yaml.Value:
        value = node.value
        if "${" in node.text:
            value = self._replaced(node, path)
        if is_secret(path) and value is not None and not isinstance(value, str):
            return node.text
        if not isinstance(value, str) or not value or value in _KEYWORDS or path in self._no_files:
            return value
        if _is_path(path):
            if is_remote(node.mark.file) and not Path(value).is_absolute():
                what = "what stands in Consul has no folder: write a path that begins with '/'"
                self._problem(node, path, what)
            return str(Path(node.mark.file).parent / value)
        return value

    def _replaced(self, node: yaml.ScalarNode, path: yaml.Path) -> yaml.Value:
        def one(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if found[0] == "$${":
                return "${"
            if name is None:
                self._problem(node, path, "expected ${NAME} or ${NAME:-default} ($${ for a literal ${)")
                return ""
            given = self._environ.get(name)
            if found[0] == node.text and not default:
                self.from_environment.add(path)
            if given:
                return given
            if default is None and given is None:
                self._problem(node, path, f"environment variable {name} is not set")
                return ""
            return default or ""

        text = _REFERENCE.sub(one, node.text)
        # A value that is nothing but text from a plain scalar is typed as if it had been written there.
        return yaml.resolve(text) if node.plain and not is_secret(path) else text

    def _problem(self, node: yaml.ScalarNode, path: yaml.Path, what: str) -> None:
        self.spoiled.add(path)
        self.problems.append(yaml.Problem(node.mark, path, what))
