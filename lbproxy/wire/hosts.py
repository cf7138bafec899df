"""The hosts file: names an administrator pinned by hand, which DNS is not asked about. hosts(5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lbproxy.domain.address import AddressError, normalise_ip

_LIMIT_BYTES: Final = 4 << 20  # block lists of 100,000 names stay below; what is longer is cut
_NOTHING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
_Stamp = tuple[int, int, int, int]


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Name (lower case, no trailing dot) -> IP literals in the file's order, without repeats. Malformed lines are skipped,
    as every reader of this file does."""
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) < 2:
            continue
        with contextlib.suppress(AddressError):  # then the whole line is skipped
            address = normalise_ip(fields[0])
            for name in fields[1:]:
                found.setdefault(name.rstrip(".").lower(), {})[address] = None
    return {name: tuple(addresses) for name, addresses in found.items()}


class HostsFile:
    """Looked at (one `stat`) before every use, and read again, in a thread, when it has changed. Missing means empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._names: Mapping[str, tuple[str, ...]] = _NOTHING
        self._reading = asyncio.Lock()

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of `name` (lower case, no trailing dot); empty when the file does not name it."""
        if self._look() != self._stamp:
            async with self._reading:
                stamp = self._look()
                if stamp != self._stamp:  # else somebody else has read it meanwhile
                    self._names = await asyncio.to_thread(_read, self._path)
                    self._stamp = stamp
        return self._names.get(name, ())

    def _look(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _read(path: Path) -> Mapping[str, tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES)
    except OSError:
        return _NOTHING  # gone between the look and the read, or not ours to read: then DNS is asked
    return MappingProxyType(parse_hosts(data.decode("utf-8", "replace")))
