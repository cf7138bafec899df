"""Who may import whom: the rows of docs/architecture.md as data, and the rules over one module's imports.

A row may import any row below it. Siblings in a row never import each other, but for `cli`, which starts the other
commands. The exceptions that go beyond rows are named one by one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

ROWS: dict[str, int] = {
    "__main__": 7,
    "cli": 7,
    "demo": 7,
    "simulate": 7,
    "app": 6,
    "config": 5,
    "proxy": 4,
    "admin": 4,
    "relay": 3,
    "discovery": 3,
    "registration": 3,
    "health": 3,
    "signals": 3,
    "metrics": 3,
    "accesslog": 3,
    "wire": 2,
    "strategies": 1,
    "pool": 1,
    "domain": 0,
}

# Siblings that may be imported after all.
SIBLINGS = {("__main__", "cli"), ("cli", "demo"), ("cli", "simulate")}

# What a lower row offers, and a package has no business with: it gets a callable or a contract instead.
FORBIDDEN: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("relay", "discovery", "registration", "health", "signals", "metrics", "accesslog"),
        frozenset({"pool"}),
    ),
    **dict.fromkeys(("proxy", "admin"), frozenset({"discovery", "registration", "health", "signals"})),
}

# All that a package may see of another one.
ONLY_THROUGH: dict[tuple[str, str], str] = {
    ("proxy", "relay"): "lbproxy.relay.contract",
    ("admin", "relay"): "lbproxy.relay.contract",
}

PURE_ROWS = frozenset({0, 1})

# Pure rows decide from what they are given: no loop, clock, chance, thread, log or anything outside the process.
# (Chance comes in as an object of a Protocol in `domain`, the time as a number.)
IMPURE = frozenset(
    {
        "_socket",
        "asyncio",
        "concurrent",
        "ctypes",
        "datetime",
        "fcntl",
        "http",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "resource",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
        "warnings",
    }
)


@dataclass(frozen=True)
class Import:
    """One imported name, as dotted as it is known: `from a.b import c` is `a.b.c`."""

    line: int
    name: str


def imports(tree: ast.Module) -> Iterator[Import]:
    """Every import in a module, also inside functions and `if TYPE_CHECKING`, and by name at run time."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(node.lineno, alias.name)
            case ast.ImportFrom(module=module, names=names, level=level):
                for alias in names:
                    yield Import(node.lineno, f"{'.' * level}{module or ''}.{alias.name}")
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str() as name), *_],
            ):
                yield Import(node.lineno, name)
            case _:
                pass


def import_problems(module: str, source: str) -> list[str]:
    """What `module` (dotted, below lbproxy) imports and may not: a line each."""
    package = module.split(".")[1]
    if package not in ROWS:
        return [f"{module}: {package} stands in no row"]
    return [
        f"{module}:{found.line}: imports {found.name}: {problem}"
        for found in imports(ast.parse(source))
        for problem in _problems(package, found.name)
    ]


def _problems(package: str, name: str) -> Iterator[str]:
    top, _, below = name.partition(".")
    if name.startswith("."):
        yield "relative imports hide the row"
    elif top == "lbproxy":
        yield from _row_problems(package, below.partition(".")[0], name)
    elif ROWS[package] in PURE_ROWS:
        if top in IMPURE:
            yield f"{package} is pure"
        elif top not in sys.stdlib_module_names:
            yield f"{package} needs nothing but the standard library"


def _row_problems(package: str, imported: str, name: str) -> Iterator[str]:
    if imported == package:
        return
    if imported not in ROWS:
        yield f"{imported or 'the whole package'} stands in no row"
    elif ROWS[imported] > ROWS[package]:
        yield f"row {ROWS[package]} imports row {ROWS[imported]}"
    elif ROWS[imported] == ROWS[package] and (package, imported) not in SIBLINGS:
        yield "siblings never import each other"
    elif imported in FORBIDDEN.get(package, ()):
        yield f"{package} never imports {imported}"
    else:
        contract = ONLY_THROUGH.get((package, imported))
        if contract is not None and not f"{name}.".startswith(f"{contract}."):
            yield f"{package} sees {imported} only through {contract}"
