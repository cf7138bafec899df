"""Secrets: from the environment, or from a file that is read again when it changes. Never printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


class SecretError(Exception):
    """The file behind a secret cannot be read or is empty."""


@dataclass(slots=True)
class Secret:
    """Either `value` (already expanded from the environment) or `path`. Equality is by origin; `repr` shows neither text."""

    path: Path | None = None
    value: str | None = field(default=None, repr=False)
    _stamp: tuple[int, int, int] | None = field(default=None, init=False, repr=False, compare=False)
    _read: str = field(default="", init=False, repr=False, compare=False)

    def reveal(self) -> str:
        """The text, without surrounding white space. The file is read again when its inode, size or mtime changed.

        Raises SecretError when the file cannot be read or holds nothing.
        """
        if self.path is None:
            return (self.value or "").strip()
        try:
            status = self.path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp != self._stamp:
                self._read = self.path.read_text(encoding="utf-8").strip()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SecretError(f"{self.path}: {detail}") from error
        if not self._read:
            raise SecretError(f"{self.path}: the file is empty")
        return self._read
