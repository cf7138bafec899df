"""A service's EndpointSlices: listed, then watched from that version on.

Why each rule is there:

- A list names no version: it is as new as the cluster's majority. It is read in pages; where a page's version is gone meanwhile, it is
  read from the start.
- A watch ends after `watch_s` by agreement, and goes on from the last version. That is also how soon a connection that died without a
  word is noticed, and why a quiet service still shows that all is well.
- 410 (as a status or as an event) says that the version is no longer kept: everything is listed again, and what has vanished is seen by
  comparison. Nothing is emptied meanwhile.
- `resync_s` bounds how long anything that a watch missed stays unseen.
- A version that went backwards is a cluster that was restored: `regressed`. (Versions are numbers wherever they are compared; one
  that is none is not.)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.discovery.kubernetes.server import POD_FOLDER, ApiServer, Gone, Watch
from lbproxy.discovery.kubernetes.slices import Slices
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import HttpClient

PAGE: Final = 10  # slices, of 100 endpoints each where nothing else is configured: parsing them takes the loop about 2 ms
MOST_PAGES: Final = 10_000
LISTS: Final = 3  # tries to read all pages before their version is gone
GONE: Final = 3  # as many in a row mean that watching does not work
BATCH: Final = 20  # events taken at once, of those that are there already
SPREAD: Final = 0.1  # of a watch's length, so that many instances do not come back together
EARLY_S: Final = 0.5  # a watch that ends younger than this, and empty, did not work


class KubernetesRegistry:
    """A `Registry`. Owns the connection of its watch."""

    def __init__(
        self,
        options: KubernetesOptions,
        http: HttpClient,
        clock: Callable[[], float],
        rng: Random,
        environ: Mapping[str, str] = os.environ,
        pod: Path = POD_FOLDER,
    ) -> None:
        self._options = options
        self._clock = clock
        self._rng = rng
        self._server = ApiServer(options, http, environ, pod)
        self._slices: Slices | None = None
        self._watch: Watch | None = None
        self._version = ""  # outlives errors
        self._listed_at = 0.0
        self._watched_at = 0.0
        self._lasts_s = 0
        self._barren = True  # the present watch has brought nothing yet
        self._gone = 0  # how often, without anything in between

    async def next(self) -> Answer:
        try:
            if self._slices is None:
                return await self._list()
            try:
                return await self._follow(self._slices)
            except Gone as error:
                return await self._after_gone(error)
        except RegistryError as error:
            blamed = self._blamed(error)
            blamed.listed = self._slices is not None
            self._drop()
            raise blamed from error

    async def confirm(self) -> Answer:
        try:
            slices, version = await self._read()
            return Answer(slices.candidates, regressed=_older(version, self._version))
        except RegistryError as error:
            raise self._blamed(error) from error

    async def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        self._slices = None
        self._close_watch()

    def _close_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _list(self) -> Answer:
        """Everything; the watch goes on from there."""
        self._drop()
        slices, version = await self._read()
        answer = Answer(slices.candidates, regressed=_older(version, self._version))
        self._slices, self._version, self._listed_at = slices, version, self._clock()
        return answer

    async def _after_gone(self, error: Gone) -> Answer:
        self._gone = self._gone + 1 if self._barren else 0
        if self._gone == GONE:
            self._gone = 0
            raise RegistryError(f"each list is too old for a watch: {error}")
        return await self._list()

    async def _read(self) -> tuple[Slices, str]:
        for _ in range(LISTS - 1):
            with suppress(Gone):  # between two pages: once more, at a newer version
                return await self._pages()
        return await self._pages()

    async def _pages(self) -> tuple[Slices, str]:
        slices, following = Slices(self._options.port, self._options.family), ""
        for _ in range(MOST_PAGES):
            page = await self._server.page(PAGE, following)
            metadata, items = page.get("metadata"), page.get("items")
            # An empty list comes as `[]`, from servers of old as null.
            if not isinstance(metadata, Mapping) or not isinstance(items, list | None) or "items" not in page:
                raise RegistryError("the answer is no EndpointSliceList")
            for item in items or ():
                await asyncio.sleep(0)  # each is up to a thousand endpoints
                slices.put(item)
            following = metadata.get("continue") or ""
            if not following:
                return slices, _version(page)
        raise RegistryError(f"a list of more than {MOST_PAGES} pages")

    async def _follow(self, slices: Slices) -> Answer:
        watch = self._watch
        if watch is None:
            watch = await self._open()
        now = self._clock()
        left_s = self._watched_at + self._lasts_s + self._options.timeout_s - now
        try:
            async with asyncio.timeout(max(0.0, min(left_s, self._listed_at + self._options.resync_s - now))):
                event = await watch.next()
        except TimeoutError:
            if self._clock() - self._listed_at >= self._options.resync_s:
                return await self._list()
            raise RegistryError(f"the watch of {self._lasts_s} s has not ended in time") from None
        except EOFError as error:
            return await self._go_on(slices, str(error))
        for taken in range(1, BATCH + 1):
            self._take(slices, *event)
            if taken == BATCH or not watch.ready:
                break
            event = await watch.next()
        return Answer(slices.candidates, consistent=False)

    async def _open(self) -> Watch:
        spread = 1 + SPREAD * (2 * self._rng.random() - 1)
        lasts_s = max(1, round(self._options.watch_s * spread))
        asked_at = self._clock()
        self._watch = await self._server.watch(self._version, lasts_s)
        self._watched_at, self._lasts_s, self._barren = asked_at, lasts_s, True
        return self._watch

    async def _go_on(self, slices: Slices, why: str) -> Answer:
        """The watch has ended: another one from the last version on. One that never worked is an error, or the next one would follow
        at once."""
        self._close_watch()
        if self._barren and self._clock() - self._watched_at < EARLY_S:
            raise RegistryError(f"the watch brought nothing: {why or 'it ended at once'}")
        await self._open()
        return Answer(slices.candidates, consistent=False)

    def _take(self, slices: Slices, kind: str, told: Mapping[str, Any]) -> None:
        """Raises RegistryError."""
        match kind:
            case "ADDED" | "MODIFIED":
                slices.put(told)
            case "DELETED":
                slices.delete(told)
            case "BOOKMARK":
                pass
            case _:
                raise RegistryError(f"an event of the kind {kind[:50]!r}")
        self._version = _version(told)
        self._barren = False

    def _blamed(self, error: RegistryError) -> RegistryError:
        try:
            address = self._server.address
        except RegistryError:
            return RegistryError(f"{error}")
        return RegistryError(f"{address}: {error}", retry_after_s=error.retry_after_s)


def _version(told: Mapping[str, Any]) -> str:
    """Of a list or an object. Raises RegistryError."""
    metadata = told.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    if not isinstance(version, str) or not version:
        raise RegistryError("no resourceVersion in its answer")
    return version


def _older(version: str, than: str) -> bool:
    return all(each.isascii() and each.isdigit() and len(each) < 40 for each in (version, than)) and int(
        version
    ) < int(than)
