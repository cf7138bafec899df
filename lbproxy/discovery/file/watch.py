"""inotify(7) on the folders that lead to a file: a hint that it may have changed, and nothing more.

Three calls through ctypes: nothing else of inotify is needed, so a library would bring more than it saves. Watching the file
itself would follow an inode that the next rename replaces; so it is folders that are watched, every one in which a name on the way
to the file stands: symbolic links (a ConfigMap's `..data`) and names that are missing yet included. Where inotify does not exist, or
its limits are reached, nothing is told, and the caller's own looking must do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

Trail = tuple[tuple[str, str], ...]
"""(folder, name): a change of any of these names can change what a path leads to."""

MAX_LINKS: Final = 40  # the kernel's own bound, path_resolution(7)

_MODIFY, _ATTRIBUTES, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW = 0x400, 0x800, 0x4000
_ONLY_FOLDERS: Final = 0x01000000
_OF_THE_FOLDER: Final = _DELETE_SELF | _MOVE_SELF | _OVERFLOW
_WATCHED: Final = (
    _MODIFY | _ATTRIBUTES | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
) | _MOVE_SELF
_HEADER: Final = struct.Struct("iIII")
_READ_BYTES: Final = 65536


def trail(path: Path) -> Trail:
    """Every name on the way to `path` that stands for something else, and the file's own."""
    found: list[tuple[str, str]] = []
    todo = str(path if path.is_absolute() else Path.cwd() / path).split("/")[::-1]
    here = "/"
    while todo and len(found) <= MAX_LINKS:
        name = todo.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            here = os.path.dirname(here)  # noqa: PTH120 - `here` holds no link, so this is its parent
            continue
        at = f"{here.rstrip('/')}/{name}"
        try:
            target = os.readlink(at)  # noqa: PTH115 - its text, not a normalised path
        except OSError as error:
            if error.errno != errno.EINVAL:  # missing, or not ours to see: it may come
                return (*found, (here, name))
            if not todo:
                found.append((here, name))
            here = at
            continue
        found.append((here, name))
        todo += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here
    return tuple(found)


class FolderWatch:
    """Owns one inotify descriptor, `fd`, to be watched for reading; -1 where there is none to be had.

    `cover` may run in another thread than the rest; `close` while it runs leaves the closing to it.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._names: dict[int, set[str]] = {}  # by watch
        self._written: set[tuple[int, str]] = set()
        self._lock = threading.Lock()
        self._covering = False
        self._closed = False
        try:
            self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:  # not Linux
            self.fd = -1

    @property
    def is_being_written(self) -> bool:
        """Whether somebody has written to one of the names and has not closed it since."""
        return bool(self._written)

    def cover(self, names: Trail) -> None:
        """Watch these names, and only these. May block as long as the file system does."""
        with self._lock:
            if self._closed or self.fd < 0:
                return
            self._covering = True
        try:
            self._watch(names)
        finally:
            self._covered()

    def read(self) -> bool:
        """Take in what the kernel has to tell: whether any of it concerns the names. Never blocks."""
        concerned = False
        while self.fd >= 0 and not self._closed:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                break
            concerned = self._take(data) or concerned
        return concerned

    def close(self) -> None:
        with self._lock:
            if not self._closed and not self._covering and self.fd >= 0:
                os.close(self.fd)
            self._closed = True

    def _covered(self) -> None:
        with self._lock:
            self._covering = False
            if self._closed:
                os.close(self.fd)

    def _watch(self, names: Trail) -> None:
        watched: dict[int, set[str]] = {}
        for folder, name in names:
            watch = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _WATCHED | _ONLY_FOLDERS)
            if watch >= 0:
                watched.setdefault(watch, set()).add(name)
        for gone in self._names.keys() - watched.keys():
            self._libc.inotify_rm_watch(self.fd, gone)
        self._names = watched

    def _take(self, data: bytes) -> bool:
        concerned = False
        for watch, mask, name in _events(data):
            if mask & _OF_THE_FOLDER:
                concerned = True
                self._written.clear()
            elif name in self._names.get(watch, ()):
                concerned = True
                if mask & _MODIFY:
                    self._written.add((watch, name))
                elif not mask & _ATTRIBUTES:
                    self._written.discard((watch, name))
        return concerned


def _events(data: bytes) -> Iterable[tuple[int, int, str]]:
    start = 0
    while start < len(data):
        watch, mask, _, size = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        yield watch, mask, os.fsdecode(data[start : start + size].rstrip(b"\0"))
        start += size
