"""Keys under a prefix of etcd: listed at one revision, then watched from the next one on.

Why each rule is there:

- A list is linearizable, and paged at the revision of its first page. A watch may lag behind but never lies; its messages hold whole
  revisions, so each gives a full answer.
- A compaction ends a watch (`compact_revision`): everything is listed again, and what has vanished meanwhile is seen by comparison.
- A watch that is silent may be dead, or may have missed something (etcd issue 18089), and etcd goes on with a watch of somebody whose
  permission was taken away: after `quiet_s` the keys are counted by a linearizable read, and if the revision has moved meanwhile,
  etcd is asked whether one of them was put since. And `resync_s` bounds how long anything that was missed all the same stays unseen.
- A revision that went backwards, or another cluster's id, is a cluster that was restored or made anew: `regressed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.etcd.gateway import Compacted, Gateway, Watch, why_cancelled
from lbproxy.discovery.etcd.keys import Keys, number
from lbproxy.discovery.etcd.options import EtcdOptions
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.http import HttpClient

PAGE: Final = 250  # keys; reading one takes the loop about 2 ms
MOST_KEYS: Final = 1_000_000
LISTS: Final = 3  # tries to read all pages before a compaction takes their revision away
BATCH: Final = 100  # messages taken at once, of those that are there already
EARLY_S: Final = 1.0  # a watch that ends younger than this, and empty, did not work
COMPACTIONS: Final = 3  # as many in a row mean that watching does not work


class EtcdRegistry:
    """A `Registry`. Owns the connection of its watch."""

    def __init__(
        self, options: EtcdOptions, http: HttpClient, clock: Callable[[], float], rng: Random
    ) -> None:
        self._options = options
        self._clock = clock
        self._prefix = options.prefix.encode()
        self._gateway = Gateway(options, http, int(rng.random() * len(options.addresses)))
        self._keys: Keys | None = None
        self._watch: Watch | None = None
        self._seen: tuple[int, int] | None = None  # cluster and revision; outlives errors
        self._listed_at = 0.0
        self._watched_at = 0.0
        self._barren = True  # the present watch has brought nothing yet
        self._compactions = 0  # of watches that had brought nothing, one after the other

    async def next(self) -> Answer:
        try:
            if self._keys is None:
                return await self._list()
            return await self._follow(self._keys)
        except RegistryError as error:
            blamed = self._blamed(error)
            blamed.listed = self._keys is not None
            self._drop()
            self._gateway.turn()
            raise blamed from error

    async def confirm(self) -> Answer:
        try:
            keys, seen = await self._read()
        except RegistryError as error:
            raise self._blamed(error) from error
        return Answer(keys.candidates, regressed=self._regressed(seen))

    async def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        self._keys = None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _list(self) -> Answer:
        """Everything; the watch goes on from there."""
        self._drop()
        keys, seen = await self._read()
        regressed = self._regressed(seen)
        self._keys, self._seen, self._listed_at = keys, seen, self._clock()
        return Answer(keys.candidates, regressed=regressed)

    def _regressed(self, seen: tuple[int, int]) -> bool:
        before = self._seen
        return before is not None and (seen[0] != before[0] or seen[1] < before[1])

    async def _read(self) -> tuple[Keys, tuple[int, int]]:
        for _ in range(LISTS - 1):
            with suppress(Compacted):  # between two pages: once more, at a newer revision
                return await self._pages()
        return await self._pages()

    async def _pages(self) -> tuple[Keys, tuple[int, int]]:
        """Every key at one revision, and cluster and revision. Raises RegistryError for what is not all of it."""
        keys, start, seen, count = Keys(self._prefix), self._prefix, None, 0
        while True:
            page = await self._gateway.page(start, PAGE, seen[1] if seen is not None else 0)
            if seen is None:
                seen, count = _where(page.get("header")), number(page, "count")
            pairs = page.get("kvs", [])
            if not isinstance(pairs, list) or count > MOST_KEYS:
                raise RegistryError("no list of keys" if count <= MOST_KEYS else f"{count} keys")
            for pair in pairs:
                key = keys.put(pair)
                if key < start:
                    raise RegistryError("keys out of order")
                start = key + b"\0"
            if page.get("more") is not True:
                break
            if not pairs:
                raise RegistryError("an empty page that is not the last one")
        if len(keys) != count:
            raise RegistryError(f"{len(keys)} keys of {count}")
        return keys, seen

    async def _follow(self, keys: Keys) -> Answer:
        watch = self._watch
        if watch is None:
            assert self._seen is not None
            asked_at = self._clock()
            watch = self._watch = await self._gateway.watch(self._seen[1] + 1)
            self._watched_at, self._barren = asked_at, True
            if self._regressed(_where(watch.header)):
                # The member lags behind, or the cluster has lost its memory, and etcd would wait for the revision to come.
                return await self._look_after(watch, keys)
        left_s = self._listed_at + self._options.resync_s - self._clock()
        try:
            async with asyncio.timeout(max(0.0, min(left_s, self._options.quiet_s))):
                message = await watch.next()
        except TimeoutError:
            return await self._look_after(watch, keys)
        except EOFError:
            if self._barren and self._clock() - self._watched_at < EARLY_S:
                # It never worked, and the next one would follow at once.
                raise RegistryError("the watch ended at once and brought nothing") from None
            return await self._list()
        taken = 0
        while not message.get("canceled"):
            self._take(keys, message)
            taken += 1
            if taken == BATCH or not watch.ready:
                return Answer(keys.candidates, consistent=False)
            message = await watch.next()
        if number(message, "compact_revision"):
            return await self._after_compaction()
        raise RegistryError(f"the watch was cancelled: {why_cancelled(message)}")

    def _take(self, keys: Keys, message: Mapping[str, Any]) -> None:
        """Raises RegistryError."""
        assert self._seen is not None
        events = message.get("events", [])
        if not isinstance(events, list):
            raise RegistryError("events that are no list")
        keys.apply(events)
        self._barren = False
        cluster, revision = self._seen
        self._seen = cluster, max(revision, _where(message.get("header"))[1])

    async def _after_compaction(self) -> Answer:
        self._compactions = self._compactions + 1 if self._barren else 0
        if self._compactions == COMPACTIONS:
            self._compactions = 0
            raise RegistryError("each watch is compacted before it brings anything")
        return await self._list()

    async def _look_after(self, watch: Watch, keys: Keys) -> Answer:
        """Nothing was said for a while: is that all there is to say?"""
        if watch.within:
            raise RegistryError("the watch is stuck in the middle of a message")
        if self._clock() - self._listed_at >= self._options.resync_s:
            return await self._list()
        assert self._seen is not None
        counted = await self._gateway.count()
        where = _where(counted.get("header"))
        if self._regressed(where) or number(counted, "count") != len(keys):
            return await self._list()
        # Something was written, maybe elsewhere; one key in another's place leaves the count as it is.
        if where[1] > self._seen[1]:
            if await self._gateway.has_news(self._seen[1]):
                return await self._list()
            self._seen = where
        return Answer(keys.candidates, consistent=False)

    def _blamed(self, error: RegistryError) -> RegistryError:
        return RegistryError(f"{self._gateway.address}: {error}", retry_after_s=error.retry_after_s)


def _where(header: Any) -> tuple[int, int]:
    """The cluster, and its revision. Raises RegistryError."""
    if not isinstance(header, Mapping):
        raise RegistryError("an answer without a header")
    revision = number(header, "revision")
    if revision < 1:
        raise RegistryError("an answer at revision 0")
    return number(header, "cluster_id"), revision
