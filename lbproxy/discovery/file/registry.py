"""A file of endpoints as a registry: read when the kernel tells of a change, and looked at now and then in any case.

Writers are best when they put a new file into the old one's place (rename). One that writes into the file is met with patience: while
it has the file open, and while what stands there makes no sense, there is a short wait for the rest.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from lbproxy.discovery.contract import Answer
from lbproxy.discovery.file import reading
from lbproxy.discovery.file.options import FileOptions
from lbproxy.discovery.file.reading import Look
from lbproxy.discovery.file.watch import FolderWatch, trail
from lbproxy.domain.errors import RegistryError

READ_WITHIN_S: Final = 10.0
PAUSE_S: Final = 0.1  # nothing happens for this long: whoever writes has finished
PATIENCE_S: Final = 2.0  # with a writer that does not come to an end
SAY_AGAIN_S: Final = 300.0  # what is wrong with a file that stays as it is
# So often it is told that nothing has changed: looking is cheap, taking in a long answer is not.
WELL_EVERY_S: Final = 30.0


class FileRegistry:
    """A `Registry` over one file. Owns an inotify descriptor from `next` to `close`, and at most one thread at a time."""

    def __init__(self, options: FileOptions, clock: Callable[[], float]) -> None:
        self._path = options.path
        self._interval_s = options.interval_s
        self._clock = clock
        self._watch: FolderWatch | None = None
        self._hint = asyncio.Event()
        self._looking: asyncio.Future[Look] | None = None
        self._seen: Look | None = None  # what reading can be spared by
        self._told: Look | None = None
        self._answer = Answer(())

    async def next(self) -> Answer:
        """A file that stays as wrong as it was is told of again only after some minutes, so that whoever mends it is heard at once."""
        if self._watch is None:
            self._start_watching()
        started = self._clock()
        while True:
            hinted = self._told is None or await self._wait(self._interval_s)
            found = await self._settled(hinted)
            changed, passed_s = not found.same_as(self._told), self._clock() - started
            if found.candidates is not None:
                if changed:
                    self._answer = Answer(found.candidates)
                self._told = found
                if changed or passed_s >= WELL_EVERY_S:
                    return self._answer
            elif changed or passed_s >= SAY_AGAIN_S:
                self._told = found
                raise RegistryError(found.error)

    async def confirm(self) -> Answer:
        """Reads the file again, whatever its stamp says."""
        found = await self._look(read_again=True)
        if found.candidates is None:
            raise RegistryError(found.error)
        return Answer(found.candidates)

    async def close(self) -> None:
        if self._watch is not None:
            if self._watch.fd >= 0:
                asyncio.get_running_loop().remove_reader(self._watch.fd)
            self._watch.close()
            self._watch = None
        self._told = None

    async def _settled(self, hinted: bool) -> Look:
        """A look at a file that nobody is about to change. `hinted`: the kernel told of a finished change, so one look is enough."""
        until = self._clock() + PATIENCE_S
        before: Look | None = None
        while True:
            hinted = self._hint.is_set() or hinted
            self._hint.clear()
            found = await self._look(read_again=hinted)
            if found.same_as(self._told) or self._clock() >= until:
                return found
            if self._watch is None or not self._watch.is_being_written:
                if found.candidates is not None and hinted:
                    return found
                if found.same_as(before):
                    return found
            before = found
            hinted = await self._wait(PAUSE_S) or hinted

    async def _wait(self, seconds: float) -> bool:
        """Whether the kernel has told of something, before or within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            return False
        return True

    def _start_watching(self) -> None:
        watch = self._watch = FolderWatch()

        def told() -> None:
            # Read here and at once: a descriptor left readable would keep the loop spinning while nobody waits for the file.
            if watch.read():
                self._hint.set()

        if watch.fd >= 0:
            asyncio.get_running_loop().add_reader(watch.fd, told)

    async def _look(self, *, read_again: bool) -> Look:
        """A look in a thread. One that is on its way already may have seen the file before whatever it is that one looks for now: then
        another one follows. Raises RegistryError."""
        joined = self._looking is not None
        found = await self._one_look(read_again)
        return await self._one_look(read_again) if joined else found

    async def _one_look(self, read_again: bool) -> Look:
        """Raises RegistryError when the file system does not answer: then the same look is waited for next time, so that a dead network
        file system holds one thread."""
        looking = self._looking
        if looking is None:
            looking = self._looking = _in_a_thread(partial(self._look_now, self._watch, read_again))
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                found = await asyncio.shield(looking)
        except TimeoutError as error:
            raise RegistryError(f"{self._path}: the file system does not answer") from error
        finally:
            if looking.done() and self._looking is looking:
                self._looking = None
        self._seen = found
        return found

    def _look_now(self, watch: FolderWatch | None, read_again: bool) -> Look:
        """In a thread. The folders come first: what changes after that is told of, and what changed before is seen."""
        if watch is not None:
            watch.cover(trail(self._path))
        return reading.look(self._path, self._seen, read_again=read_again)


def _in_a_thread(look: Callable[[], Look]) -> asyncio.Future[Look]:
    """In one of its own, and none of the loop's: those are few, and waited for at the end of the process, however long a file system
    that is gone keeps them. Raises RegistryError."""
    found: concurrent.futures.Future[Look] = concurrent.futures.Future()
    found.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found.set_result(look())
        except Exception as error:  # noqa: BLE001 - for whoever waits
            found.set_exception(error)

    try:
        threading.Thread(target=run, name="a look at a file", daemon=True).start()
    except RuntimeError as error:
        raise RegistryError(f"no thread can be had: {error}") from error
    return asyncio.wrap_future(found)
