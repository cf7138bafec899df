"""The shape of a file: its name, its length, the length of its functions, and how it starts tasks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

FILE_LINES = 400
FUNCTION_LINES = 60

# Words that name no concept: what stands under them belongs beside the thing it serves.
BANNED_WORDS = frozenset({"utils", "helpers", "common", "misc", "core", "manager"})
BANNED_NAMES = BANNED_WORDS | {word.removesuffix("s") for word in BANNED_WORDS} | {"managers", "cores"}


def shape_problems(path: PurePath, source: str) -> list[str]:
    """What is wrong with the shape of the file at `path` (relative to the repository): a line each."""
    return [f"{path}: {problem}" for problem in (*_name(path), *_length(path, source), *_tree(source))]


def _name(path: PurePath) -> Iterator[str]:
    for part in path.with_suffix("").parts:
        for word in part.split("_"):
            if word in BANNED_NAMES:
                yield f"{word!r} names no concept"


def _length(path: PurePath, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines, at most {FILE_LINES}"
    if path.name == "__init__.py" and source.strip():
        yield "package __init__ files are empty"


def _tree(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"
            case ast.Call(func=ast.Attribute(attr="create_task", value=owner), keywords=keywords):
                if "loop" in ast.unparse(owner).lower():
                    yield f"{node.lineno}: tasks live in a TaskGroup, not on the loop"
                elif not any(keyword.arg == "name" for keyword in keywords):
                    yield f"{node.lineno}: tasks have names"
            case _:
                pass
