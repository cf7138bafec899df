"""Reload: read again, compare, apply the difference; one at a time, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from lbproxy.admin.contract import Refused
from lbproxy.admin.shapes import ReloadResult
from lbproxy.app import changes
from lbproxy.app.binds import BindError
from lbproxy.app.following import Sources
from lbproxy.app.registries import prepare
from lbproxy.app.running import Running
from lbproxy.config.load import ConfigError, Loaded
from lbproxy.config.options import Configuration
from lbproxy.wire.systemd import Notifier

logger = logging.getLogger("lbproxy.app")


class Reloader:
    """`reread` runs in a thread, so that a large file does not hold the loop; `applied` is called after a change took hold."""

    def __init__(
        self,
        running: Running,
        sources: Sources,
        reread: Callable[[], Loaded],
        notifier: Notifier,
        applied: Callable[[], None],
    ) -> None:
        self._running = running
        self._sources = sources
        self._reread = reread
        self._notifier = notifier
        self._applied = applied
        self._turn = asyncio.Lock()
        self._broken_off = False  # by a defect: what is in force may differ from what is said to be

    async def reload(self) -> ReloadResult:
        """Raises Refused with every error; then nothing has changed."""
        async with self._turn:
            if self._running.draining:
                raise Refused("draining: a configuration is no longer taken")
            self._notifier.reloading()
            try:
                return await self._reload()
            finally:
                if not self._running.draining:
                    self._notifier.ready()

    async def _reload(self) -> ReloadResult:
        running = self._running
        try:
            loaded = await asyncio.to_thread(self._read)
        except ConfigError as error:
            raise self._refused("invalid", error.errors) from error
        except (
            OSError,
            RuntimeError,
        ) as error:  # a folder that cannot be entered, a thread that cannot be had
            raise self._refused("failed", (f"the configuration cannot be read: {error}",)) from error
        recalled = await self._recall(loaded.configuration)
        if running.draining:
            raise Refused("draining: a configuration is no longer taken")
        before, after = running.loaded.configuration, loaded.configuration
        restart = changes.restart_needed(before, after)
        lines = changes.differences(before, after)
        again = self._broken_off
        if lines or again:
            self._broken_off = True
            try:
                with recalled:
                    changes.apply(running, loaded, self._sources, {})
            except BindError as error:
                self._broken_off = again
                raise self._refused("failed", await _explained(error)) from error
            except Exception:
                running.reloads["failed"] += 1
                running.last_reload_successful = False
                raise
            self._broken_off = False
            self._applied()
            lines += ["what a defect had broken off: done"] if again else []
            lines += changes.served_by_half(running)
        result = ReloadResult(
            result="applied" if lines else "unchanged", changes=lines, restart_needed=restart
        )
        running.reloads[result["result"]] += 1
        running.last_reload_successful = True
        logger.info("reload: %s%s", result["result"], "".join(f"; {line}" for line in lines))
        for key in restart:
            logger.warning("reload: %s differs in the file and needs a restart; left as it was", key)
        return result

    async def _recall(self, configuration: Configuration) -> AbstractContextManager[None]:
        """What new sources begin with, read from the disk beside the loop. Nothing new is followed yet, so no answer can come in between;
        what has changed here by the time it is read is looked up once more, and stands before the disk."""
        snapshots = self._sources.snapshots
        wanted = [] if snapshots is None else changes.to_recall(self._running, configuration)
        if snapshots is None or not wanted:
            return nullcontext()
        try:
            return snapshots.recalled(await asyncio.to_thread(snapshots.recall, wanted))
        except RuntimeError:  # a thread that cannot be had: then it is read as it is asked for
            return nullcontext()

    def _read(self) -> Loaded:
        loaded = self._reread()
        prepare(loaded.configuration)
        return loaded

    def _refused(self, result: str, errors: tuple[str, ...]) -> Refused:
        self._running.reloads[result] += 1
        self._running.last_reload_successful = False
        for line in errors:
            logger.error("reload refused, nothing changed: %s", line)
        return Refused("the configuration is refused; nothing has changed", errors)


async def _explained(error: BindError) -> tuple[str, ...]:
    """With the holders of taken ports; who they are is looked up beside the loop, and left out where no thread can be had."""
    try:
        return await asyncio.to_thread(error.explained)
    except RuntimeError:
        return error.errors
