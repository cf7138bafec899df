"""Types of command line arguments: each takes the text and returns the value, or says what is wrong with it."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)"


def duration(text: str) -> float:
    """Seconds from `250ms`, `30s`, `1m30s`, `1h`. Raises ArgumentTypeError."""
    if not re.fullmatch(f"({_PART})+", text, re.ASCII):
        raise ArgumentTypeError(f"{text!r} is not a duration such as 30s or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, text))


def weight(text: str) -> int | str:
    """A whole number, or `auto`. Raises ArgumentTypeError."""
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ArgumentTypeError(f"{text!r} is neither a whole number nor auto")
    return int(text)


def session_id(text: str) -> int:
    """A whole number above 0. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
