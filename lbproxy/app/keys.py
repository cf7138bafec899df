"""Following the keys in Consul that the configuration stands in: each new version goes through the reload, and is reported back."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lbproxy.admin.contract import Refused
from lbproxy.admin.shapes import ReloadResult
from lbproxy.app.remote import Remote
from lbproxy.app.running import Running
from lbproxy.config.kv import kept as disk
from lbproxy.config.kv.documents import Documents, Key
from lbproxy.config.kv.following import BACKOFF, Following, Next
from lbproxy.config.kv.reports import report
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random

if TYPE_CHECKING:
    from lbproxy.wire.consul import ConsulClient

logger = logging.getLogger("lbproxy.config")

REPORT_WITHIN_S: Final = 5.0


class Keys:
    """Owns nothing that outlives `run`. `reload` is what SIGHUP calls; `instance` names us among those who follow the same keys."""

    def __init__(
        self,
        remote: Remote,
        client: ConsulClient,
        running: Running,
        reload: Callable[[], Awaitable[ReloadResult]],
        instance: str,
        rng: Random,
    ) -> None:
        self._remote = remote
        self._client = client
        self._running = running
        self._reload = reload
        self._instance = instance
        self._rng = rng
        self._refused: dict[str, tuple[str, ...]] = {}
        self._took = asyncio.Event()
        self._following = [Following(key, remote.texts[key.source], rng) for key in remote.keys]
        for following in self._following:
            if remote.from_disk and not remote.refused:
                following.warning = f"{remote.from_disk}; started from what was kept"
            if remote.refused:
                self._refused[following.key.source] = remote.refused
        self._unreported = {key.source for key in remote.keys}
        self._told_refused: set[str] = set()
        self._reports_fail = False

    @property
    def warnings(self) -> list[str]:
        """Why what is in force may not be what stands in Consul."""
        told = [f"configuration {each.key.source} {each.warning}" for each in self._following if each.warning]
        if not self._running.last_reload_successful:
            told += [f"configuration {source}: its newest version is refused" for source in self._refused]
        return told

    def took(self) -> None:
        """A reload has taken hold."""
        self._remote.took()
        self._refused.clear()
        self._took.set()

    async def run(self) -> None:
        """Until cancelled, or draining."""
        if not self._remote.from_disk:
            self._took.set()
        try:
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle(), name="configuration kept")
                following = [
                    group.create_task(self._follow(each), name=f"configuration {each.key.source}")
                    for each in self._following
                ]
                await asyncio.wait(following)
                settling.cancel()
        finally:
            await self._client.close()

    async def _follow(self, following: Following) -> None:
        """The wall around a key: a defect is logged, and the key followed on."""
        attempt = 0
        while not self._running.draining:
            try:
                await self._turn(following)
            except Exception:
                logger.exception("configuration %s: following it failed", following.key.source)
                await asyncio.sleep(max(1.0, BACKOFF.wait_s(attempt, self._rng)))
                attempt += 1

    async def _turn(self, following: Following) -> None:
        from lbproxy.config.kv.reading import read  # noqa: PLC0415 - an HTTP client, for those alone who name a key

        index = 0
        while not self._running.draining:
            try:
                found, answered = await read(self._client, following.key, index)
            except RegistryError as error:
                found = None
                step = following.failed(str(error), error.retry_after_s)
            else:
                step = following.answered(found, answered, self._running.loop.time())
            self._say(following.key, step)
            if step.version is not None:
                await self._try(following.key, step.version)
            elif found is not None and following.key.source in self._unreported:
                await self._report_start(following.key)
            index = step.index
            await asyncio.sleep(step.wait_s)

    def _say(self, key: Key, step: Next) -> None:
        if step.news:
            logger.log(
                logging.WARNING if step.bad else logging.INFO, "configuration %s %s", key.source, step.news
            )

    async def _try(self, key: Key, version: Documents) -> None:
        self._remote.offer(version)
        logger.info("configuration %s: version %d", key.source, version.version)
        errors: tuple[str, ...] = ()
        try:
            done = await self._reload()
        except Refused as refusal:
            if self._running.draining:
                return
            errors = refusal.errors or (str(refusal),)
            self._refused[key.source] = errors
            await self._report(key, version, "refused", errors)
        else:
            self._told_refused.discard(key.source)
            self.took()
            await self._report(key, version, done["result"], restart_needed=tuple(done["restart_needed"]))

    async def _report_start(self, key: Key) -> None:
        """Of the version that the start found."""
        errors = self._remote.refused
        await self._report(key, self._remote.texts[key.source], "refused" if errors else "applied", errors)

    async def _report(
        self,
        key: Key,
        version: Documents,
        result: str,
        errors: tuple[str, ...] = (),
        restart_needed: tuple[str, ...] = (),
    ) -> None:
        """Tell those who have written the version what became of it: once, and without insisting."""
        from lbproxy.config.kv.reading import write  # noqa: PLC0415

        self._unreported.discard(key.source)
        (self._told_refused.add if result == "refused" else self._told_refused.discard)(key.source)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        texts = self._remote.texts.values()
        text = json.dumps(
            report(version, texts, result, self._instance, at, errors, restart_needed), indent=2
        )
        try:
            async with asyncio.timeout(REPORT_WITHIN_S):
                await write(self._client, key.status(self._instance), text.encode())
        except (RegistryError, TimeoutError) as error:
            level = logging.DEBUG if self._reports_fail else logging.INFO
            logger.log(
                level,
                "configuration %s: the report is not written: %s",
                key.source,
                str(error) or "no answer",
            )
            self._reports_fail = True
        else:
            self._reports_fail = False

    async def _settle(self) -> None:
        """After each reload that took hold: keep what is in force, for a start without Consul, and take back what was reported of a
        text that was refused and now is in force, since what it was at odds with has changed. One at a time, the newest last."""
        while True:
            await self._took.wait()
            self._took.clear()
            folder, in_force = self._remote.folder, self._remote.in_force
            if folder is not None:
                try:
                    await asyncio.to_thread(disk.save, folder, disk.Kept(in_force, time.time()))
                except (OSError, RuntimeError) as error:
                    logger.error("the configuration in force is not kept: %s", error)  # noqa: TRY400 - the message says all
            for source in self._told_refused & in_force.keys():
                version = in_force[source]
                await self._report(version.key, version, "applied")
