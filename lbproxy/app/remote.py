"""A configuration that stands in Consul: the first version, by hook or by crook, and the texts that a reload reads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lbproxy.config.kv import kept as disk
from lbproxy.config.kv.documents import Documents, Key, keys
from lbproxy.config.kv.environment import access
from lbproxy.config.kv.kept import Kept
from lbproxy.config.load import ConfigError, Loaded, load
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.state import StateError

logger = logging.getLogger("lbproxy.config")

PATIENCE_S: Final = 30.0
"""How long a start waits for Consul when there is nothing else to start from."""
PATIENCE_WITH_KEPT_S: Final = 5.0
"""How long it waits when there is."""

ABSENT: Final = "there is no such key in Consul"


class Unreachable(Exception):
    """Consul could not be asked in time, and nothing is kept that could stand in for it."""


@dataclass(slots=True)
class Remote:
    """What stands in Consul under the keys of one run. `texts` are what a reload reads; `in_force` what the last one that was not
    refused had read."""

    paths: Sequence[str | Path]
    environ: Mapping[str, str]
    keys: tuple[Key, ...]
    access: ConsulAccess
    folder: Path | None
    texts: Mapping[str, Documents]
    in_force: Mapping[str, Documents]
    refused: tuple[str, ...] = ()
    """Why the texts were refused, at the start."""
    from_disk: str = ""
    """Why the start had to take what was kept, "" when it had not."""
    _read: Mapping[str, Documents] | None = None

    def read(self) -> Loaded:
        """Files and texts as they are now. Raises ConfigError. Blocks."""
        self._read = self.texts
        return load(self.paths, self.environ, remote=self.texts)

    def took(self) -> None:
        """What `read` gave last is in force."""
        if self._read is not None:
            self.in_force = self._read

    def offer(self, version: Documents) -> None:
        """What the next `read` is to see of one key."""
        self.texts = {**self.texts, version.key.source: version}


def begin(paths: Sequence[str | Path], environ: Mapping[str, str], rng: Random) -> tuple[Loaded, Remote]:
    """The first configuration, from Consul, or from what was kept of it while Consul is away or holds what cannot be used.

    Raises ValueError for arguments and variables that make no sense, ConfigError, Unreachable. Blocks for `PATIENCE_S`.
    """
    named, how = tuple(keys(paths)), access(environ)
    folder = disk.state_folder(paths, environ)
    kept = _kept(folder, named)
    try:
        found = asyncio.run(_ask(named, how, PATIENCE_S if kept is None else PATIENCE_WITH_KEPT_S, rng))
    except RegistryError as error:
        if kept is None:
            raise Unreachable(f"{', '.join(key.source for key in named)}: {error}") from error
        return _from(kept, {}, str(error), Remote(paths, environ, named, how, folder, {}, {}))
    missing = [source for source, each in found.items() if each is None]
    present = {source: each for source, each in found.items() if each is not None}
    remote = Remote(paths, environ, named, how, folder, present, {})
    try:
        loaded = load(paths, environ, remote={**present, **dict.fromkeys(missing, ABSENT)})
    except ConfigError as error:
        if kept is None or (not missing and kept.documents == present):
            raise
        for line in error.errors:
            logger.error("refused: %s", line)  # noqa: TRY400 - the line says all
        remote.refused = error.errors
        return _from(kept, present, "what stands there is refused", remote)
    remote.in_force = present
    return loaded, remote


async def _ask(
    named: Sequence[Key], how: ConsulAccess, patience_s: float, rng: Random
) -> dict[str, Documents | None]:
    from lbproxy.config.kv.reading import read_all  # noqa: PLC0415 - an HTTP client, for those alone who name a key

    return await read_all(named, how, patience_s, rng)


def _kept(folder: Path | None, named: Sequence[Key]) -> Kept | None:
    if folder is None:
        return None
    try:
        return disk.load(folder, named)
    except StateError as error:
        logger.warning("what was kept of the configuration is of no use: %s", error)
        return None


def _from(kept: Kept, present: Mapping[str, Documents], why: str, remote: Remote) -> tuple[Loaded, Remote]:
    """Start from what was kept; the texts stay what Consul said, as far as it said something."""
    loaded = load(remote.paths, remote.environ, remote=kept.documents)
    age_s = max(0, round(time.time() - kept.saved_at))
    logger.error(
        "STARTING FROM THE LAST KNOWN GOOD CONFIGURATION, saved %d s ago in %s: %s", age_s, remote.folder, why
    )
    remote.texts = {**kept.documents, **present}
    remote.in_force = kept.documents
    remote.from_disk = why
    return loaded, remote
