"""Streams of JSON, a value a line: what watches bring."""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp

from lbproxy.domain.errors import RegistryError

MAX_LINE_BYTES: Final = 32 << 20


class CutOff(RegistryError):
    """The stream ended in the middle of a line."""


class JsonLines:
    """A stream of JSON values, one a line. Cut by hand: aiohttp's own lines end at 128 KiB, a line of a thousand endpoints does not.

    `next` may be cancelled, and called again: nothing is lost. Raises RegistryError as `read_json`, and CutOff; what goes wrong on the way is the caller's. The response stays the caller's, too.
    """

    def __init__(self, content: aiohttp.StreamReader, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._content = content
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._looked = 0  # no line ends before here
        self._last = False  # the line in the buffer lacked its end

    @property
    def within(self) -> bool:
        """Whether a part of a line has come whose end has not."""
        return bool(self._buffer) and not self.ready

    @property
    def ready(self) -> bool:
        """Whether `next` has a value without waiting."""
        while self._looked < len(self._buffer):
            end = self._buffer.find(b"\n", self._looked)
            if end < 0:
                self._looked = len(self._buffer)
            elif self._buffer[:end].isspace() or end == 0:
                del self._buffer[: end + 1]
                self._looked = 0
            else:
                self._looked = end
                return True
        return False

    async def next(self) -> Any:
        """The next line's value. Raises EOFError where the stream ends after a whole line."""
        while not self.ready:
            await self._more()
        line = bytes(self._buffer[: self._looked])
        del self._buffer[: self._looked + 1]
        self._looked = 0
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            if self._last:
                raise CutOff("the answer ends in the middle of a line") from error
            raise RegistryError(f"a line of the answer is no JSON: {error}") from error

    async def _more(self) -> None:
        if len(self._buffer) > self._limit_bytes:
            raise RegistryError(f"a line of more than {self._limit_bytes} bytes")
        chunk = await self._content.readany()
        if not chunk:
            if not self._buffer.strip():
                raise EOFError
            # etcd's last word, an error, comes without the end of its line. An object that is whole is one.
            if not self._buffer.rstrip().endswith(b"}"):
                raise CutOff("the answer ends in the middle of a line")
            chunk = b"\n"
            self._last = True
        self._buffer += chunk
