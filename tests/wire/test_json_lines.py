"""A stream of JSON values, a value a line, however the network cut it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.errors import RegistryError
from lbproxy.wire.json_lines import CutOff, JsonLines

pytestmark = pytest.mark.asyncio

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


class Peer(BaseProtocol):
    """What a reader belongs to; nothing is behind it."""

    @property
    def connected(self) -> bool:
        return True


def reader() -> StreamReader:
    loop = asyncio.get_running_loop()
    return StreamReader(Peer(loop), 1 << 24, loop=loop)


def stream(*pieces: bytes) -> StreamReader:
    content = reader()
    for piece in pieces:
        content.feed_data(piece)
    content.feed_eof()
    return content


async def read(lines: JsonLines) -> list[Any]:
    found = []
    while True:
        try:
            found.append(await lines.next())
        except EOFError:
            return found


@given(
    st.lists(VALUES, max_size=6),
    st.integers(1, 9),
    st.lists(st.sampled_from([b"", b" \r", b"\n\n"]), min_size=6),
)
async def test_lines_are_found_wherever_the_pieces_end(
    items: list[Any], size: int, between: Sequence[bytes]
) -> None:
    text = b"".join(
        blank + json.dumps(item).encode() + b"\n" for item, blank in zip(items, between, strict=False)
    )
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert await read(JsonLines(stream(*pieces))) == items


async def test_a_line_of_megabytes_is_one_value() -> None:
    long = ["x" * 1000] * 3000
    assert await read(JsonLines(stream(json.dumps(long).encode(), b"\n"))) == [long]


async def test_an_end_within_a_line_is_an_error_after_what_was_whole() -> None:
    lines = JsonLines(stream(b'{"a": 1}\n{"b"'))
    assert await lines.next() == {"a": 1}
    assert lines.within
    with pytest.raises(CutOff):
        await lines.next()


@pytest.mark.parametrize("text", [b'{"a": {"b": 1}', b"[1, 2", b"12", b"[1]", b'"x"', b'{"a": 1} {'])
async def test_what_may_be_the_beginning_of_more_is_cut_off(text: bytes) -> None:
    with pytest.raises(CutOff):
        await JsonLines(stream(text)).next()


async def test_a_last_line_that_is_a_whole_object_counts() -> None:
    assert await read(JsonLines(stream(b'{"a": 1}\n', b'{"b": {"c": 2}} '))) == [{"a": 1}, {"b": {"c": 2}}]


async def test_garbage_and_what_is_too_long_are_errors() -> None:
    with pytest.raises(RegistryError, match="no JSON"):
        await JsonLines(stream(b"<html>\n")).next()
    with pytest.raises(RegistryError, match="no JSON"):
        await JsonLines(stream(b"[" * 100_000 + b"\n")).next()
    with pytest.raises(RegistryError, match="more than 10 bytes"):
        await JsonLines(stream(b"x" * 11, b"x"), 10).next()


async def test_waiting_can_be_cancelled_and_loses_nothing() -> None:
    content = reader()
    lines = JsonLines(content)
    content.feed_data(b'{"a":')
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(lines.next(), name="wait for a line")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
    assert (lines.within, lines.ready) == (True, False)
    content.feed_data(b" 1}\n{}\n \n")
    found = [(await lines.next(), lines.ready) for _ in range(2)]
    assert found == [({"a": 1}, True), ({}, False)]
