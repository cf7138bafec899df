"""Just enough of JSON Schema 2020-12 to hold the examples against our own; an unknown keyword fails the test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_SILENT = {
    "$defs",
    "$schema",
    "title",
    "description",
    "default",
    "examples",
    "propertyNames",
    "discriminator",
}
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def mismatches(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> list[str]:
    """Where `value` does not fit: a line each."""
    return [line for keyword in schema for line in _keyword(keyword, value, schema, root, path)]


# Whether a value fits what a keyword wants; each says yes to values of a kind that it does not speak about.
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, wanted: any(
        _is(value, kind) for kind in ([wanted] if isinstance(wanted, str) else wanted)
    ),
    "const": lambda value, wanted: bool(value == wanted),
    "enum": lambda value, wanted: value in wanted,
    "pattern": lambda value, wanted: not isinstance(value, str) or re.search(wanted, value) is not None,
    "minimum": lambda value, wanted: not _is(value, "number") or value >= wanted,
    "maximum": lambda value, wanted: not _is(value, "number") or value <= wanted,
    "minLength": lambda value, wanted: not isinstance(value, str) or len(value) >= wanted,
    "maxLength": lambda value, wanted: not isinstance(value, str) or len(value) <= wanted,
    "maxItems": lambda value, wanted: not isinstance(value, list) or len(value) <= wanted,
    "maxProperties": lambda value, wanted: not isinstance(value, dict) or len(value) <= wanted,
    "minItems": lambda value, wanted: not isinstance(value, list) or len(value) >= wanted,
    "required": lambda value, wanted: not isinstance(value, dict) or set(wanted) <= set(value),
}


def _keyword(
    keyword: str, value: Any, schema: dict[str, Any], root: dict[str, Any], path: str
) -> Iterator[str]:
    wanted = schema[keyword]
    if keyword in _TESTS:
        if not _TESTS[keyword](value, wanted):
            yield f"{path}: {value!r} is against {keyword}: {wanted}"
    elif keyword == "$ref":
        yield from mismatches(value, root["$defs"][wanted.rpartition("/")[2]], root, path)
    elif keyword in {"anyOf", "oneOf"}:
        if all(mismatches(value, each, root, path) for each in wanted):
            yield f"{path}: {value!r} fits none of {wanted}"
    elif keyword == "items":
        for index, item in enumerate(value if isinstance(value, list) else []):
            yield from mismatches(item, wanted, root, f"{path}[{index}]")
    elif keyword in {"properties", "patternProperties", "additionalProperties"}:
        yield from _members(keyword, value if isinstance(value, dict) else {}, schema, root, path)
    else:
        assert keyword in _SILENT, f"{keyword} is not looked at here"


def _members(
    keyword: str, value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str
) -> Iterator[str]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, member in value.items():
        here = f"{path}.{key}"
        matched = [below for pattern, below in patterns.items() if re.search(pattern, key)]
        if keyword == "properties" and key in named:
            yield from mismatches(member, named[key], root, here)
        elif keyword == "patternProperties":
            for below in matched:
                yield from mismatches(member, below, root, here)
        elif keyword == "additionalProperties" and key not in named and not matched:
            below = schema["additionalProperties"]
            if below is False:
                yield f"{here}: unknown"
            elif isinstance(below, dict):
                yield from mismatches(member, below, root, here)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS[kind])
