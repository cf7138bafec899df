"""Long documents, read without a long step: one call of the JSON parser holds the event loop to its end, from a thread, too."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.documents import read_any, read_document
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import parse_json
from lbproxy.wire.json_items import json_items

SLICE: Final = 200  # entries between two turns of the loop: about a millisecond

_BEFORE_THE_LIST: Final = re.compile(r'\s*(?:\{\s*"endpoints"\s*:\s*)?(?=\[)')


async def read_large(body: bytes) -> tuple[Candidate, ...]:
    """As `read_document` of the body's JSON. Where the list does not come first, the parser takes it in one step after all.

    Raises RegistryError.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegistryError(f"the answer is no JSON: {error.reason}") from error
    items = _the_list(text)
    if items is not None:
        try:
            return await _in_slices(items)
        except RegistryError:
            items = None  # not as it looked; the parser says what it is
    return await asyncio.to_thread(lambda: read_document(parse_json(body)))


def _the_list(text: str) -> str | None:
    """The list of endpoints as it stands in a document that has nothing else of any length; None where that is not plain to see."""
    before = _BEFORE_THE_LIST.match(text)
    if before is None:
        return None
    end = text.rfind("]") + 1
    try:
        frame = json.loads(f"{text[: before.end()]}[]{text[end:]}")
    except (ValueError, RecursionError):
        return None
    rest = frame["endpoints"] if isinstance(frame, dict) else frame
    return text[before.end() : end] if rest == [] else None


async def _in_slices(items: str) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    turn = SLICE
    async for entry in json_items(items):
        found.extend(read_any(entry))
        if len(found) >= turn:
            turn = len(found) + SLICE
            await asyncio.sleep(0)
    return tuple(found)
