"""How large the conformance cases are: scaled down for every day, full with LBPROXY_CONFORMANCE=full."""

from __future__ import annotations

import os
from typing import Final, TypeVar

FULL: Final = os.environ.get("LBPROXY_CONFORMANCE") == "full"

Size = TypeVar("Size", int, float)

KIB: Final = 1024
MIB: Final = 1024 * 1024


def scaled(full: Size, small: Size) -> Size:
    """The size in the case's own words, or the one that is enough to see the behaviour."""
    return full if FULL else small
