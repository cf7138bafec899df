"""The configuration from Consul that was last in force, on disk: for a start while Consul is away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbproxy.config import files
from lbproxy.config.expand import Expanded
from lbproxy.config.kv.documents import Documents, Key, is_remote
from lbproxy.wire import state

FILE: Final = "configuration.json"
VERSION: Final = 1


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
    """None if there is nothing, or not of every key. Raises StateError. Blocks."""
    path = folder / FILE
    whole = state.read(path, VERSION)
    if whole is None:
        return None
    with state.as_written(path):
        found = {key.source: _documents(key, whole["keys"].get(key.source)) for key in keys}
        saved_at = float(whole["saved_at"])
    complete = {source: each for source, each in found.items() if each is not None}
    return Kept(complete, saved_at) if len(complete) == len(found) else None


def _documents(key: Key, plain: Any) -> Documents | None:
    if plain is None:
        return None
    parts = tuple((str(name), str(text).encode()) for name, text in plain["parts"])
    return Documents(key, parts, int(plain["version"]))


def save(folder: Path, kept: Kept) -> None:
    """As `state.write`."""
    keys = {
        source: {
            "version": each.version,
            # What was in force is UTF-8: nothing else is taken.
            "parts": [[name, text.decode()] for name, text in each.parts],
        }
        for source, each in kept.documents.items()
    }
    state.write(folder / FILE, VERSION, {"saved_at": kept.saved_at, "keys": keys})
