"""Files of the state folder: one JSON document each, of a known version, written whole or not at all. Everything here blocks."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

MAX_BYTES: Final = 64 << 20
# As json writes a list at the end of a document. Within a text the quote is escaped.
_LIST_BEGINS: Final = '":['
_LIST_ENDS: Final = "]}"

_decode: Final = json.JSONDecoder().raw_decode


class StateError(Exception):
    """The file is there and cannot be used; the message names it and says why."""


def read(path: Path, version: int, pause: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
    """The document; None if there is no file. A list that ends it, as `write` wrote it, is read item by item with a `pause` between
    two: one call of the parser would hold the interpreter to its end, in a thread, too. Raises StateError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise StateError(f"{path}: longer than {MAX_BYTES} bytes")
    with as_written(path):
        document = _parse(data.decode(), pause)
        if document["version"] != version:
            raise StateError(f"{path}: of version {document['version']!r}, not {version}")
        return dict(document)


def _parse(text: str, pause: Callable[[], None]) -> Any:
    """As `json.loads`."""
    at = text.rfind(_LIST_BEGINS)
    while at > 0 and text[at - 1] == "\\":
        at = text.rfind(_LIST_BEGINS, 0, at)
    if at <= 0 or not text.endswith(_LIST_ENDS):
        return json.loads(text)
    begin = at + len(_LIST_BEGINS)
    try:
        document = json.loads(text[:begin] + _LIST_ENDS)
        key, items = list(document.items())[-1]
        document[key] = [*items, *_items(text, begin, pause)]
    except (ValueError, AttributeError, IndexError):
        return json.loads(text)  # it was another list's beginning
    return document


def _items(text: str, at: int, pause: Callable[[], None]) -> Iterator[Any]:
    """Those of the list that begins there and ends the text. Raises ValueError."""
    while True:
        item, at = _decode(text, at)
        yield item
        pause()
        if text.startswith(_LIST_ENDS, at) and at + len(_LIST_ENDS) == len(text):
            return
        if text[at] != ",":
            raise ValueError(f"no comma at character {at}")
        at += 1


@contextlib.contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Around the reading of a document's parts: what is not there, or of another kind, becomes a StateError."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"{path}: not what was written there: {error!r}") from error


def write(path: Path, version: int, document: Mapping[str, Any]) -> None:
    """Whole or not at all, also when the machine stops meanwhile; readable for us alone. The folder is made. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name of its own for each try: two processes may share the folder, each of them number 1 of its container.
    descriptor, written = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(written)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": version, **document}, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
