"""A file that is JSON, wholly well, and maybe long: read by the parser in C, for about a quarter of the work of YAML.

Whatever is not well (`None`) is left to the YAML reader, which knows the place of what is wrong: no error is told from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

_OPENING: Final = re.compile(r'[ \t\r\n]*(?:\{[ \t\r\n]*"endpoints"[ \t\r\n]*:[ \t\r\n]*)?(?=\[)')
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_CONTAINERS: Final = (dict, list)
_NESTED: Final[dict[str, type[list[Any] | dict[str, Any]]]] = {
    "labels": dict,
    "metadata": dict,
    "targets": list,
}


def read_json(data: bytes, known: Callable[[dict[str, Any]], bool], take: Callable[[Any], None]) -> bool:
    """Hand every entry of the list over; whether the document was well to its end. `known` says whether a mapping's keys are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    opening = _OPENING.match(text)
    if opening is None:
        return False
    try:
        at = _read_list(text, opening.end(), known, take)
    except (ValueError, RecursionError):
        return False
    if "{" in opening.group():
        if text[at : at + 1] != "}":
            return False
        at = _after_space(text, at + 1)
    return at == len(text)


def _read_list(
    text: str, at: int, known: Callable[[dict[str, Any]], bool], take: Callable[[Any], None]
) -> int:
    """Where the text goes on after the list. Raises ValueError, RecursionError."""
    at = _after_space(text, at + 1)
    if text[at : at + 1] == "]":
        return _after_space(text, at + 1)
    while True:
        # One item a call: a single call for the whole text would hold the interpreter to its end.
        entry, at = _DECODER.raw_decode(text, at)
        if isinstance(entry, list) or (isinstance(entry, dict) and not (_is_flat(entry) and known(entry))):
            raise ValueError("for the YAML reader to tell")
        take(entry)
        at = _after_space(text, at)
        end = text[at : at + 1]
        at = _after_space(text, at + 1)
        if end == "]":
            return at
        if end != ",":
            raise ValueError("for the YAML reader to tell")


def _is_flat(entry: dict[str, Any]) -> bool:
    """Whether nothing is nested but what may be, and that one level deep."""
    for key, value in entry.items():
        wanted = _NESTED.get(key)
        if wanted is None:
            if isinstance(value, _CONTAINERS):
                return False
        elif value is not None:
            if not isinstance(value, wanted):
                return False
            inner: list[Any] = value if isinstance(value, list) else list(value.values())
            if any(isinstance(each, _CONTAINERS) for each in inner):
                return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs) or "" in made:
        raise ValueError("a key given twice, or without a text")
    return made


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
