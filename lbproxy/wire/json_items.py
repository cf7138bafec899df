"""A long JSON array, element by element, with pauses.

One call of the parser holds the interpreter to its end, in a thread, too: 0.1 s for ten thousand instances of Consul's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from lbproxy.domain.errors import RegistryError

SLICE_BYTES: Final = 64 << 10  # about half a millisecond of parsing between two turns of the loop

_decode: Final = json.JSONDecoder().raw_decode
_SPACE: Final = re.compile(r"[ \t\r\n]*")


async def json_items(text: str) -> AsyncIterator[Any]:
    """Every element of the array that `text` is. Raises RegistryError for anything else, maybe after the first elements."""
    at = _after_space(text, 0)
    if text[at : at + 1] != "[":
        raise RegistryError("the answer is no JSON list")
    at = _after_space(text, at + 1)
    turn = at
    if text[at : at + 1] == "]":
        at += 1
    else:
        while True:
            try:
                item, at = _decode(text, at)
            except (ValueError, RecursionError) as error:
                raise RegistryError(f"the answer is no JSON: {error}") from error
            yield item
            del item
            at = _after_space(text, at)
            end = text[at : at + 1]
            at = _after_space(text, at + 1)
            if end == "]":
                break
            if end != ",":
                raise RegistryError(f"the answer is no JSON: no comma at character {at}")
            if at - turn > SLICE_BYTES:
                turn = at
                await asyncio.sleep(0)
    if _after_space(text, at) != len(text):
        raise RegistryError("the answer is no JSON: more text after its end")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at
