"""Long documents mean what they mean in one piece, wherever their list stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.documents import read_document
from lbproxy.discovery.http.large import read_large
from lbproxy.domain.errors import RegistryError

LIST = [f"10.0.{n >> 8}.{n & 255}:80" for n in range(700)] + [
    {"targets": ["10.9.9.9:1"], "labels": {"a": "]"}}
]
ITEMS = json.dumps(LIST)


@pytest.mark.parametrize(
    "text",
    [
        ITEMS,
        f" \n{ITEMS}\n ",
        f"\ufeff{ITEMS}",
        f'{{"endpoints": {ITEMS}}}',
        f'\n{{ "endpoints"\n: {ITEMS} , "generated": "today"}}',
        f'{{"endpoints": {ITEMS}, "more": [1, 2]}}',
        f'{{"endpoints": {ITEMS}, "note": "]"}}',
        f'{{"generated": "[", "endpoints": {ITEMS}}}',
        f'{{"endpoints": ["10.0.0.1:1"], "endpoints": {ITEMS}}}',
    ],
    ids=str,
)
async def test_every_form_is_read_as_in_one_piece(text: str) -> None:
    body = text.encode()
    assert await read_large(body) == read_document(LIST)


@pytest.mark.parametrize(
    "text",
    [
        ITEMS[:-1],
        f"{ITEMS} x",
        f"{ITEMS}{ITEMS}",
        f'{{"endpoints": {ITEMS}',
        f'{{"endpoints": {ITEMS}, "endpoints": null}}',
        f'{{"other": {ITEMS}}}',
        ITEMS.replace('"10.0.0.9:80", ', '"10.0.0.9:80" '),
        f'[{ITEMS[1:-1]}, {{"targets": 5}}]',
    ],
)
async def test_what_is_no_list_is_an_error_as_in_one_piece(text: str) -> None:
    with pytest.raises(RegistryError):
        await read_large(text.encode())


async def test_what_is_no_utf_8_is_an_error() -> None:
    with pytest.raises(RegistryError):
        await read_large(b'["\xff"]')


_entries = st.lists(
    st.sampled_from(["10.0.0.1:80", "x", "]", "[", '"', {"address": "10.0.0.2:1", "weight": "]"}]), max_size=5
)


@given(
    _entries,
    st.dictionaries(st.sampled_from(["a", "endpoints", "]"]), _entries | st.text(max_size=3), max_size=2),
    st.booleans(),
)
async def test_any_document_is_read_as_in_one_piece(
    items: list[Any], more: dict[str, Any], after: bool
) -> None:
    document = {"endpoints": items, **more} if after else {**more, "endpoints": items}
    expected: Any
    try:
        expected = read_document(document)
    except RegistryError:
        with pytest.raises(RegistryError):
            await read_large(json.dumps(document).encode())
    else:
        assert await read_large(json.dumps(document).encode()) == expected
