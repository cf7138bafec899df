"""The configuration from Consul that was last in force, on disk: for a start while Consul is away."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbproxy.config import files
from lbproxy.config.expand import Expanded
from lbproxy.config.kv.documents import Documents, Key, is_remote

FILE: Final = "configuration.json"
VERSION: Final = 1
MAX_BYTES: Final = 64 << 20


class KeptError(Exception):
    """The file is there and cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """`documents` by their source; `saved_at` is in seconds of the wall clock."""

    documents: Mapping[str, Documents]
    saved_at: float


def state_folder(paths: Sequence[str | Path], environ: Mapping[str, str]) -> Path | None:
    """Where it is kept, which must be known before Consul can be asked: `runtime.state_dir` of the files beside it, or
    $STATE_DIRECTORY. None: nowhere."""
    data: Any = None
    local = [path for path in paths if not is_remote(path)]
    root = files.read(local).root if local else None
    if root is not None:
        data = Expanded(root, environ).data
    runtime = data.get("runtime") if isinstance(data, dict) else None
    chosen = runtime.get("state_dir", "auto") if isinstance(runtime, dict) else "auto"
    if chosen == "auto":
        chosen = environ.get("STATE_DIRECTORY", "").partition(":")[0] or None
    return Path(chosen) if isinstance(chosen, str) and chosen else None


def load(folder: Path, keys: Iterable[Key]) -> Kept | None:
    """None if there is nothing, or not of every key. Raises KeptError."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeptError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise KeptError(f"{path}: longer than {MAX_BYTES} bytes")
    try:
        whole = json.loads(data)
        if whole["version"] != VERSION:
            raise KeptError(f"{path}: of version {whole['version']!r}, not {VERSION}")
        found = {key.source: _documents(key, whole["keys"].get(key.source)) for key in keys}
        saved_at = float(whole["saved_at"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise KeptError(f"{path}: not what was written there: {error!r}") from error
    complete = {source: each for source, each in found.items() if each is not None}
    return Kept(complete, saved_at) if len(complete) == len(found) else None


def _documents(key: Key, plain: Any) -> Documents | None:
    if plain is None:
        return None
    parts = tuple((str(name), str(text).encode()) for name, text in plain["parts"])
    return Documents(key, parts, int(plain["version"]))


def save(folder: Path, kept: Kept) -> None:
    """Whole or not at all, also when the machine stops meanwhile; readable for us alone. Raises OSError. Blocks."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole = {
        "version": VERSION,
        "saved_at": kept.saved_at,
        "keys": {
            source: {
                "version": each.version,
                # What was in force is UTF-8: nothing else is taken.
                "parts": [[name, text.decode()] for name, text in each.parts],
            }
            for source, each in kept.documents.items()
        },
    }
    # A name of its own for each try: two processes may share the folder, each of them number 1 of its container.
    descriptor, written = tempfile.mkstemp(prefix=f".{FILE}.", dir=folder)
    new = Path(written)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(whole, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
