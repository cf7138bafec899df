"""Reading keys once, for `lbproxy check`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lbproxy.config.kv.documents import Documents, keys
from lbproxy.config.kv.environment import access
from lbproxy.config.kv.reading import read_all, texts
from lbproxy.domain.errors import RegistryError


def ask(paths: Sequence[str | Path], environ: Mapping[str, str]) -> dict[str, Documents | str]:
    """What each `consul:KEY` among the paths holds now, or why that cannot be told. Raises ValueError for a key that is none and
    for variables that make no sense."""
    named, how = list(keys(paths)), access(environ)
    try:
        return texts(asyncio.run(read_all(named, how, 0.0, random.Random())))
    except RegistryError as error:
        return {key.source: f"cannot be read: {error}" for key in named}
