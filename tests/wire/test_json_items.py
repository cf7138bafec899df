"""A long list is read as json.loads reads it, and other tasks get their turns meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.errors import RegistryError
from lbproxy.wire.json_items import SLICE_BYTES, json_items

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


async def read(text: str) -> list[Any]:
    return [item async for item in json_items(text)]


@given(st.lists(JSON), st.sampled_from([None, 0, 1, 3]), st.booleans())
def test_what_is_read_is_what_was_written(items: list[Any], indent: int | None, ascii_only: bool) -> None:
    text = f" \n{json.dumps(items, indent=indent, ensure_ascii=ascii_only)}\r\n"
    assert asyncio.run(read(text)) == items


@given(st.text(alphabet='[]{},:" 0a\\u', max_size=12) | st.text(max_size=12))
def test_any_text_is_read_as_a_whole_list_or_refused(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert asyncio.run(read(text)) == expected
    else:
        with pytest.raises(RegistryError):
            asyncio.run(read(text))


async def test_others_get_their_turns() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    text = json.dumps([{"text": "x" * 1000}] * 1000)
    async with asyncio.TaskGroup() as group:
        beside = group.create_task(other(), name="beside")
        assert len(await read(text)) == 1000
        beside.cancel()
    assert turns >= len(text) // (2 * SLICE_BYTES)
