"""Strict YAML with positions: the part of YAML that cannot surprise, as a tree in which every node knows where it stands.

One document, UTF-8, at most 1 MiB and 32 levels; no anchors, aliases or tags; keys are text and unique. Plain scalars follow
the YAML 1.2 core schema, so `on`, `yes`, `22:22` stay text; `010` does, too, because readers disagree about it.
Built from parser events: a hostile file is refused at its first excess, before a tree of it exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
# More than any number here needs; int() itself is quadratic in the number of digits.
MAX_INTEGER_DIGITS: Final = 40

Path = tuple[str | int, ...]
Value = str | int | float | bool | None

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; line and column count from 1, columns in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and at which path of the tree (empty: the file itself)."""

    mark: Mark
    path: Path
    what: str


@dataclass(slots=True)
class ScalarNode:
    """A leaf. `text` is what was written, `plain` whether without quotes, `value` what the core schema makes of it."""

    mark: Mark
    value: Value
    text: str
    plain: bool


@dataclass(slots=True)
class ListNode:
    mark: Mark
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MapNode:
    """`keys` holds where each key stands, under the same names as `entries`."""

    mark: Mark
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)


Node = ScalarNode | ListNode | MapNode


@dataclass(frozen=True, slots=True)
class Parsed:
    """`root` is None when there is no tree at all. `spoiled` are paths whose value was refused: not worth a second problem.
    Not `complete`: something could not be read, so what is missing here may stand there."""

    root: Node | None
    problems: tuple[Problem, ...]
    spoiled: frozenset[Path] = frozenset()
    complete: bool = True


class YamlError(Exception):
    """No tree can be had from here on; carries the one problem that ended it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.mark}: {problem.what}")
        self.problem = problem


def resolve(text: str) -> Value:
    """What a plain scalar means in the YAML 1.2 core schema."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_INTEGER_DIGITS:
            return text
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(
    data: bytes | str,
    name: str,
    limit_bytes: int = MAX_BYTES,
    on_item: Callable[[Node], object] | None = None,
) -> Parsed:
    """Read one document; `name` stands in the marks. Never raises: what is wrong is in the answer.

    With `on_item`, each item of a list at the root, or right below a root mapping, is handed over instead of kept: of a long list
    no tree is needed. What `on_item` raises ends the reading.
    """
    builder = _Builder(name, on_item)
    try:
        text = _decode(data, name, limit_bytes)
        for event in _events(text, name):
            builder.take(event)
    except YamlError as error:
        return Parsed(None, (*builder.problems, error.problem), frozenset(builder.spoiled), complete=False)
    root = builder.root if builder.root is not None else MapNode(Mark(name, 1, 1))
    return Parsed(root, tuple(builder.problems), frozenset(builder.spoiled))


def _decode(data: bytes | str, name: str, limit_bytes: int) -> str:
    size = len(data)
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            place = _place(data[: error.start].decode("utf-8"), name)
            raise YamlError(
                Problem(place, (), f"byte 0x{data[error.start]:02x} is not UTF-8 text")
            ) from error
    else:
        text = data
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit_bytes:
        raise YamlError(Problem(Mark(name, 1, 1), (), f"larger than {limit_bytes // 1024 // 1024} MiB"))
    text = text.removeprefix("\ufeff")
    found = _UNPRINTABLE.search(text)
    if found is not None:
        place = _place(text[: found.start()], name)
        raise YamlError(Problem(place, (), f"character U+{ord(found[0]):04X} is not allowed"))
    return text


def _place(before: str, name: str) -> Mark:
    """Where the character after `before` stands."""
    lines = _BREAK.split(before.removeprefix("\ufeff"))
    return Mark(name, len(lines), len(lines[-1]) + 1)


def _events(text: str, name: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark(name, mark.line + 1, mark.column + 1) if mark is not None else Mark(name, 1, 1)
        what = error.problem or "not YAML"
        if error.context:
            what += f" ({error.context})"
        lines = text.splitlines()
        if place.line <= len(lines) and "${" in lines[place.line - 1]:
            what += ": a ${...} inside braces or brackets needs quotes, which make it text; a number goes on a line of its own"
        raise YamlError(Problem(place, (), what)) from error
    except yaml.YAMLError as error:
        raise YamlError(Problem(Mark(name, 1, 1), (), "not YAML")) from error


@dataclass(slots=True)
class _Open:
    """A collection that has begun. `key` waits for its value; a key that was refused has `refused` set."""

    node: ListNode | MapNode
    path: Path
    is_key: bool
    key: ScalarNode | None = None
    refused: bool = False


class _Builder:
    """Takes parser events and grows the tree; refused parts are noted and left out."""

    def __init__(self, name: str, on_item: Callable[[Node], object] | None) -> None:
        self.root: Node | None = None
        self._on_item = on_item
        self.problems: list[Problem] = []
        self.spoiled: set[Path] = set()
        self._name = name
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Raises YamlError where going on makes no sense."""
        start = event.start_mark
        mark = (
            Mark(self._name, start.line + 1, start.column + 1)
            if start is not None
            else Mark(self._name, 1, 1)
        )
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise YamlError(Problem(mark, (), "a second document: only one is allowed"))
            case yaml.AliasEvent():
                self._refuse(mark, f"aliases are not allowed (*{event.anchor})")
                self._add(ScalarNode(mark, None, "", plain=True))
            case yaml.ScalarEvent():
                self._properties(mark, event.anchor, event.tag)
                plain = not event.style
                value = resolve(event.value) if plain else event.value
                self._add(ScalarNode(mark, value, event.value, plain))
            case yaml.SequenceStartEvent():
                self._properties(mark, event.anchor, event.tag)
                self._begin(ListNode(mark), mark)
            case yaml.MappingStartEvent():
                self._properties(mark, event.anchor, event.tag)
                self._begin(MapNode(mark), mark)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()
            case _:
                pass

    def _path(self) -> Path:
        """Where the next node will hang."""
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.node, ListNode):
            return (*top.path, len(top.node.items))
        return top.path if top.key is None else (*top.path, top.key.text)

    def _refuse(self, mark: Mark, what: str) -> None:
        path = self._path()
        self.problems.append(Problem(mark, path, what))
        if path and not self._awaits_key():
            self.spoiled.add(path)

    def _properties(self, mark: Mark, anchor: str | None, tag: str | None) -> None:
        if tag is not None:
            self._refuse(mark, f"tags are not allowed ({tag})")
        if anchor is not None:
            self.problems.append(Problem(mark, self._path(), f"anchors are not allowed (&{anchor})"))

    def _awaits_key(self) -> bool:
        top = self._open[-1] if self._open else None
        return top is not None and isinstance(top.node, MapNode) and top.key is None and not top.refused

    def _begin(self, node: ListNode | MapNode, mark: Mark) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise YamlError(Problem(mark, (), f"nested more than {MAX_DEPTH} levels deep"))
        is_key = self._awaits_key()
        if is_key:
            self.problems.append(Problem(mark, self._path(), "a key must be text, not a list or a mapping"))
        self._open.append(_Open(node, self._path(), is_key))

    def _end(self) -> None:
        done = self._open.pop()
        if done.is_key:
            self._open[-1].refused = True
        else:
            self._attach(done.node)

    def _add(self, node: ScalarNode) -> None:
        if not self._awaits_key():
            self._attach(node)
            return
        top = self._open[-1]
        assert isinstance(top.node, MapNode)
        if not isinstance(node.value, str) or not node.value:
            shown = f": write '{node.text}' in quotes" if node.text else ""
            self.problems.append(Problem(node.mark, top.path, f"a key must be text{shown}"))
            top.refused = True
        elif node.text in top.node.keys:
            first = top.node.keys[node.text]
            what = f"key given twice (first at line {first.line}, column {first.column})"
            self.problems.append(Problem(node.mark, (*top.path, node.text), what))
            top.refused = True
        else:
            top.key = node

    def _is_outermost(self) -> bool:
        """Whether the innermost open list hangs at the root, or right below a root mapping."""
        return len(self._open) == 1 or (len(self._open) == 2 and isinstance(self._open[0].node, MapNode))

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if isinstance(top.node, ListNode):
            if self._on_item is not None and self._is_outermost():
                self._on_item(node)
            else:
                top.node.items.append(node)
        elif top.key is not None:
            top.node.entries[top.key.text] = node
            top.node.keys[top.key.text] = top.key.mark
            top.key = None
        else:
            top.refused = False
