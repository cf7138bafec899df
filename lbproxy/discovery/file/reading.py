"""One look at the file: what it is, and what stands in it. Blocks, so it is for a thread."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.file import document
from lbproxy.domain.errors import RegistryError

Stamp = tuple[int, int, int, int, int]

# A file that was changed as short a time ago may change again without its stamp telling: the clock of file systems ticks
# every 4 ms, some network file systems' every second (git calls such an entry racy).
YOUNG_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found: `candidates`, or else `error`. Two looks are equal when there is no reason to tell the second one.

    `young`: the stamp alone does not prove that the file is still the same.
    """

    stamp: Stamp | None
    candidates: tuple[Candidate, ...] | None
    error: str
    digest: bytes = b""
    young: bool = False

    def same_as(self, other: Look | None) -> bool:
        return other is not None and (self.digest, self.error) == (other.digest, other.error)


def look(path: Path, before: Look | None, *, read_again: bool) -> Look:
    """Look at the file, and read it if it may have changed since `before`, or if told to. Never raises: what is wrong is in it."""
    try:
        if before is not None and not read_again and not before.young and _stamp(path.stat()) == before.stamp:
            return before
        data, stamp, young = _read(path)
    except OSError as error:
        return Look(None, None, f"{path}: {error.strerror}")
    except RegistryError as error:
        return Look(None, None, str(error))
    digest = blake2b(data, digest_size=16).digest()
    if before is not None and before.digest == digest:
        return Look(stamp, before.candidates, before.error, digest, young)
    try:
        return Look(stamp, document.parse(data, str(path)), "", digest, young)
    except RegistryError as error:
        return Look(stamp, None, str(error), digest, young)


def _read(path: Path) -> tuple[bytes, Stamp, bool]:
    """Raises OSError, and RegistryError for what is no file, or too large."""
    # Without O_NONBLOCK, opening a FIFO would wait for somebody to write.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise RegistryError(f"{path}:1:1: not a file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(document.LIMIT_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > document.LIMIT_BYTES:
        raise RegistryError(f"{path}:1:1: larger than {document.LIMIT_BYTES >> 20} MiB")
    return data, _stamp(status), abs(time.time_ns() - status.st_mtime_ns) < YOUNG_NS


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
