"""What is wrong, in words for the person who wrote it, at the place where it stands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbproxy.config.expand import Expanded
from lbproxy.config.model import File
from lbproxy.config.values import shown
from lbproxy.wire.urls import without_credentials
from lbproxy.wire.yaml import Mark, Path, Problem, resolve

_LATER_KEYS: Final = frozenset({"health", "when_unavailable", "on_down", "routes"})
_LATER_VALUES: Final = frozenset(
    {"metric_weighted", "peak_ewma", "source_hash", "first", "start", "periodic", "require"}
)

# Keys and names are quoted as they stand in the file, and may hold what would break or forge a line.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# Characters: enough for every sentence of ours, not for a page that was quoted by accident.
_LONGEST: Final = 400


class ConfigError(Exception):
    """Every problem of a configuration, a line each: `FILE:LINE:COLUMN: PATH: what (did you mean 'X'?)`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = sorted(set(problems), key=lambda each: (each.mark, each.what))
        self.errors = tuple(line(each) for each in ordered)
        super().__init__("\n".join(self.errors))


def line(problem: Problem) -> str:
    """One problem as users read it."""
    path = written(problem.path)
    what = without_credentials(problem.what)
    what = what if len(what) <= _LONGEST else f"{what[:_LONGEST]}..."
    told = f"{problem.mark}: {path}: {what}" if path else f"{problem.mark}: {what}"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], told)


def written(path: Path) -> str:
    """`listeners.web.bind[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'X'?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def from_validation(error: ValidationError, expanded: Expanded, *, complete: bool) -> list[Problem]:
    """Each of pydantic's errors at the innermost place of the file that it concerns. Not `complete`: a section that is
    missing may stand in a file that could not be read."""
    found: dict[tuple[Mark, Path, str], Problem] = {}
    for details in error.errors(include_url=False):
        missing_section = details["type"] == "missing" and len(details["loc"]) == 1
        if (missing_section and not complete) or _is_told_by_routes(details, expanded):
            continue
        problem = _problem(details, expanded)
        if not any(problem.path[: len(spoiled)] == spoiled for spoiled in expanded.spoiled):
            # A union tells of each branch: one is enough. Of missing keys each counts.
            apart = problem.what if details["type"] == "missing" else ""
            found.setdefault((problem.mark, problem.path, apart), problem)
    return list(found.values())


def _is_told_by_routes(details: ErrorDetails, expanded: Expanded) -> bool:
    """A listener with `routes`, which this version has not, needs no second complaint about its missing upstream."""
    *parent, name = details["loc"]
    return (
        details["type"] == "missing"
        and name == "upstream"
        and (*_existing(parent, expanded), "routes") in expanded.values
    )


def _problem(details: ErrorDetails, expanded: Expanded) -> Problem:
    path = _existing(details["loc"], expanded)
    mark = expanded.values[path]
    given, kind, context = details["input"], details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, expanded)
    if kind == "missing":
        return Problem(mark, path, f"'{details['loc'][-1]}' is missing")
    if kind == "string_pattern_mismatch" and details["loc"][-1] == "[key]":
        name = str(path[-1])
        return Problem(
            expanded.keys.get(path, mark),
            path,
            f"{name!r} is no name: letters, digits, '_', '-' and '.', not first '-' or '.', at most 63",
        )
    if kind == "literal_error" and path == ("runtime", "offload") and given == "auto":
        return Problem(mark, path, "this version has no 'auto' yet: one of 'off'")
    return Problem(mark, path, _what(kind, given, context, details["msg"]))


def _what(kind: str, given: Any, context: dict[str, Any], message: str) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind in {"literal_error", "enum"}:
        return _not_one_of(given, str(context["expected"]))
    if kind == "union_tag_invalid":
        return _not_one_of(context["tag"], str(context["expected_tags"]))
    if kind == "union_tag_not_found":
        return "'type' is missing"
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context["ge"] if kind == "greater_than_equal" else context["le"]
        return f"{shown(given)} is out of range: {'at least' if 'ge' in context else 'at most'} {bound}"
    expected = {
        "int_type": "a whole number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
    }.get(kind)
    if expected is not None:
        hint = ""
        if kind == "int_type" and isinstance(given, str) and isinstance(resolve(given), int):
            hint = " (without quotes)"
        elif kind == "string_type" and isinstance(given, int | float):
            hint = " (in quotes)"
        return f"expected {expected}{hint}, got {shown(given)}"
    if kind == "too_short":
        return "the list is empty"
    if kind == "string_too_long":
        return f"longer than {context['max_length']} characters"
    return message[0].lower() + message[1:]


def _not_one_of(given: Any, expected: str) -> str:
    known = [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]
    if isinstance(given, str) and given in _LATER_VALUES:
        return f"this version has no '{given}' yet: one of {_words(known)}"
    near = did_you_mean(given, known) if isinstance(given, str) else ""
    return f"{shown(given)} is not one of {_words(known)}{near}"


def _words(known: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in known)


def _unknown_key(path: Path, expanded: Expanded) -> Problem:
    key = str(path[-1])
    mark = expanded.keys.get(path, expanded.values[path])
    if key in _LATER_KEYS:
        return Problem(mark, path, f"this version has no '{key}' yet")
    return Problem(mark, path, f"unknown key{did_you_mean(key, _known_keys(path[:-1]))}")


def _known_keys(path: Path) -> list[str]:
    """The keys that may stand in the mapping at `path`."""
    shape: Any = _SHAPES
    for part in path:
        if isinstance(part, int):
            continue
        shape = shape.get(part, shape.get("*", {}))
    return [key for key in shape if key != "*"]


def _existing(loc: Sequence[str | int], expanded: Expanded) -> Path:
    """The part of pydantic's location that stands in the file: it also names union branches and keys that are missing."""
    path: Path = ()
    for part in loc:
        if (*path, part) in expanded.values:
            path = (*path, part)
    return path


def _shapes(model: Any) -> dict[str, Any]:
    """Key -> the shapes below it; `*` stands for a mapping's free names."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        below: dict[str, Any] = {}
        for each in _models_in(field.annotation):
            below |= _shapes(each)
        found[name] = {"*": below} if name in {"listeners", "upstreams"} else below
    return found


def _models_in(annotation: Any) -> list[Any]:
    """The models inside an annotation (`list[Annotated[Endpoint, ...]]`): several in a union."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for each in getattr(annotation, "__args__", ()) for model in _models_in(each)]


_SHAPES: Final = _shapes(File)
