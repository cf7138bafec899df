"""A source made of a registry: everything that holds for all of them, once.

Each answer is vetted, its host names are resolved, the guard judges it, and what is then in force is reported. Errors are followed by
a back-off with full jitter and change nothing else. What is in force is kept on disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from lbproxy.discovery.contract import Answer, Failed, Registry, Report, SourceStatus
from lbproxy.discovery.guard import Guard, Verdict
from lbproxy.discovery.intake import Intake, difference
from lbproxy.discovery.journal import Journal
from lbproxy.discovery.options import DiscoveryOptions
from lbproxy.discovery.pace import Pace, Retries
from lbproxy.discovery.snapshots import Saved, Snapshots
from lbproxy.discovery.vetting import Refusal
from lbproxy.domain.address import Address
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import Difference, Membership
from lbproxy.domain.strategy import Random
from lbproxy.wire.resolver import Resolution
from lbproxy.wire.state import StateError
from lbproxy.wire.urls import redacted

_log = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # how exactly the guard's deadlines and names' TTLs are kept
# State on disk that is older gives way to the first answer that names anybody: by then its addresses may be others' (in a container
# network they are given out again). Younger state is guarded like an answer: a registry that starts anew fills up one by one.
FRESH_S: Final = 3600.0
SAVE_PAUSE_S: Final = 1.0  # a registry in motion is not written down change by change
SAVE_AGE_S: Final = 300.0  # an unchanged answer refreshes the age of what is on disk this often
_NO_DIFFERENCE: Final = Difference((), ())
_RESULTS: Final = ("applied", "unchanged", "held", "confirmed", "expired", "error")
_NOTHING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class FollowedSource:
    """A `Source`. Owns its registry, and three tasks while it runs.

    `clock` gives monotonic seconds, `wall` those since 1970. `is_own` tells our own listeners, `is_down` what is known, by other
    evidence, not to work. `predecessor` is the source that a reload replaced: what it had in force stands until the first answer.
    """

    def __init__(
        self,
        upstream: str,
        options: DiscoveryOptions,
        registry: Registry,
        report: Report,
        failed: Failed,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        wall: Callable[[], float],
        rng: Random,
        resolve: Callable[[str], Awaitable[Resolution]],
        is_own: Callable[[Address], bool],
        is_down: Callable[[Address], bool],
        snapshots: Snapshots | None,
        predecessor: FollowedSource | None = None,
    ) -> None:
        self.name = options.name
        self.subject = options.subject
        self.upstream = upstream
        self.registry = registry
        self.journal = Journal(upstream, options.name, options.asks_for)
        self._asks_for = options.asks_for
        self._report = report
        self._failed = failed
        self._clock = clock
        self._sleep = sleep
        self._wall = wall
        self._snapshots = snapshots
        self._guard = Guard(options.guard, is_down)
        self._intake = Intake(options.limit, resolve, is_own, clock, rng)
        self._pace = Pace(clock)
        self._retries = Retries(clock, rng)
        self._results = dict.fromkeys(_RESULTS, 0)
        self._refused: Counter[str] = Counter(dict.fromkeys(map(str, Refusal), 0))
        self._last_refused: Counter[str] = Counter()
        self._error = ""
        self._failing_since = -math.inf
        self._retry_at: float | None = None  # while nobody is being asked
        self._started_at = clock()
        self._refreshed_at: float | None = None
        self._saved_at: float | None = None  # of what is on disk, by the wall clock
        self._unverified = False
        self._answers = 0  # of `next`
        self._report_is_due = False  # one was begun and did not come to its end: it is made again as a whole
        self._taking = asyncio.Lock()
        self._attention = asyncio.Event()  # something waits for a moment in time
        self._unsaved = asyncio.Event()
        self._begin(predecessor)

    # -- what it tells

    @property
    def refreshed_at(self) -> float | None:
        return self._refreshed_at

    @property
    def in_force(self) -> Membership | None:
        return self._guard.in_force

    @property
    def in_trouble(self) -> bool:
        return self._guard.trouble

    @property
    def standing_in(self) -> bool:
        """Whether what is in force is that of another subject."""
        return self._guard.standing_in

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Host name -> last good addresses, for a successor."""
        return self._intake.names

    @property
    def status(self) -> SourceStatus:
        saved_s = None if self._saved_at is None else max(0.0, self._wall() - self._saved_at)
        since = self._started_at if self._refreshed_at is None else self._refreshed_at
        silent_s = max(0.0, self._clock() - since)
        return SourceStatus(
            dict(self._results),
            saved_s if self._unverified and saved_s is not None else silent_s,
            dict(self._refused),
            self._guard.held,
            self._guard.why,
            self._unverified,
            saved_s,
            self._error,
            self._asks_for,
            0 if self.in_force is None else len(self.in_force.members),
            None if self._retry_at is None else max(0.0, self._retry_at - self._clock()),
        )

    def initial(self) -> Membership | None:
        return self._guard.in_force

    def _begin(self, predecessor: FollowedSource | None) -> None:
        if predecessor is not None and predecessor.in_force is not None:
            self._take_over(predecessor, predecessor.in_force)
            return
        if self._snapshots is None:
            return
        try:
            saved = self._snapshots.load(self.upstream, self.name)
        except StateError as error:
            _log.warning(
                "upstream %s: what was last known of %s is lost: %s", self.upstream, self.name, error
            )
            return
        if saved is None:
            return
        if saved.subject != self.subject:
            _log.warning(
                "upstream %s: what was last known of %s is of something else, and not used",
                self.upstream,
                self.name,
            )
            return
        self._intake.remember(saved.names)
        kept, refused = self._intake.vet_again(saved.membership)
        self._count_refused(refused)
        age_s = max(0.0, self._wall() - saved.saved_at)
        (self._guard.begin if age_s <= FRESH_S else self._guard.stand_in)(kept, trusted=False)
        self._saved_at = saved.saved_at
        self._unverified = True
        self.journal.begin(named=bool(kept.members))
        _log.warning(
            "upstream %s: %d endpoints of %s as they were %.0f s ago, until it answers",
            self.upstream,
            len(kept.members),
            self.name,
            age_s,
        )

    def _take_over(self, predecessor: FollowedSource, in_force: Membership) -> None:
        trusted = not predecessor.in_trouble
        if predecessor.subject == self.subject:
            self.journal.take_over(predecessor.journal)
        if predecessor.subject == self.subject and not predecessor.standing_in:
            self._guard.begin(in_force, trusted=trusted)
            self._intake.remember(predecessor.names)
            self._unverified = predecessor.status.unverified
        else:
            self._guard.stand_in(in_force, trusted=trusted)
            self._unverified = True

    # -- following

    async def run(self) -> None:
        """Never returns. After a defect (an exception) it may be called again."""
        try:
            async with asyncio.TaskGroup() as group:
                of = f"discovery {self.upstream} {self.name}"
                group.create_task(self._listen(), name=of)
                group.create_task(self._keep_time(), name=f"{of} deadlines")
                group.create_task(self._keep_saved(), name=f"{of} state")
        except Exception:
            self._guard.failed()
            self._results["error"] += 1
            if not self._error:
                self._failing_since = self._clock()
            self._error = "a defect, see the log"
            raise
        finally:
            await self.registry.close()

    async def _listen(self) -> None:
        while True:
            try:
                answer = await self.registry.next()
            except RegistryError as error:
                wait_s = self._retries.failed(error)
                self._retry_at = self._clock() + wait_s
                self._told_error(error, wait_s)
                await self._sleep(wait_s)
                self._retry_at = None
                continue
            self._retries.well()
            self._answers += 1
            if await self._take(answer):
                self._pace.changed()
            elif pause_s := self._pace.unchanged():
                await self._sleep(pause_s)

    async def _take(self, answer: Answer, *, asked_at: int | None = None) -> bool:
        """Whether it changed anything. An answer that was asked for when there had been `asked_at` others is of no use once there is
        another one: it may be the older of the two."""
        async with self._taking:
            if asked_at is not None and asked_at != self._answers:
                return False
            membership, refused = await self._intake.members(answer.candidates)
            if refused != self._last_refused:
                self._count_refused(refused)
            self._last_refused = refused
            now, before = self._clock(), self._guard.in_force
            verdict = self._guard.answered(
                membership, now, consistent=answer.consistent, regressed=answer.regressed
            )
            if self._error:
                self.journal.recovered(
                    self._failing_since, now, answered_before=self._refreshed_at is not None
                )
            self.journal.answered(len(answer.candidates))
            first, self._unverified = self._unverified, False
            self._error = ""
            self._refreshed_at = now
            return await self._done(verdict, before, first=first)

    async def _done(self, verdict: Verdict, before: Membership | None, *, first: bool = False) -> bool:
        self._tell(verdict)
        return await self._after(before, first=first)

    def _tell(self, verdict: Verdict) -> None:
        self._results[verdict.kind] += 1
        if verdict.message:
            self.journal.warn(verdict.message)

    async def _after(self, before: Membership | None, *, first: bool) -> bool:
        """Report what differs by now, and see to what waits for time."""
        in_force = self._guard.in_force
        if self._report_is_due:
            before = None
        if self._guard.held or self._intake.next_due is not None:
            self._attention.set()
        if in_force is None or in_force is before:
            # A wall clock that was put back makes what is on disk no younger.
            if self._saved_at is None or abs(self._wall() - self._saved_at) > SAVE_AGE_S:
                self._unsaved.set()
            if first and in_force is not None:
                self._report(in_force, _NO_DIFFERENCE)  # the same, and now it is its own word
            return False
        self._unsaved.set()
        self._report_is_due = True
        self._report(in_force, None if before is None else await difference(before, in_force))
        self._report_is_due = False
        return True

    def _told_error(self, error: RegistryError, wait_s: float | None = None) -> None:
        """Asked again in `wait_s`; None: it goes on being asked as it was."""
        if not self._error:
            self._failing_since = self._clock()
        self._guard.failed()
        self._results["error"] += 1
        self._error = redacted(str(error))
        self._failed(RegistryError(f"{self.name}: {self._error}", retry_after_s=wait_s))

    def _count_refused(self, refused: Mapping[str, int]) -> None:
        self._refused.update(refused)
        if refused:
            self.journal.refused(refused, self._intake.examples)

    async def obey(self) -> int:
        """As `Source.obey`. What is held by answers that are still on their way in is not meant."""
        these = set(self._guard.held_addresses)
        async with self._taking:
            obeyed = self._guard.obey(these)
            if obeyed is None:
                return 0
            verdict, gone = obeyed
            self._tell(verdict)
            self._unsaved.set()
            assert self._guard.in_force is not None
            # At once, without a turn of the loop in between: whoever asked may go away meanwhile.
            self._report(self._guard.in_force, Difference((), gone))
            return len(gone)

    # -- time

    async def _keep_time(self) -> None:
        while True:
            await self._attention.wait()
            await self._sleep(LOOK_S)
            now = self._clock()
            await self._let_go(now)
            await self._refresh_names(now)
            confirm_at = self._guard.confirm_at
            if confirm_at is not None and now >= confirm_at:
                await self._confirm()
            if not self._guard.held and self._intake.next_due is None:
                self._attention.clear()

    async def _let_go(self, now: float) -> None:
        async with self._taking:
            before = self._guard.in_force
            verdict = self._guard.advance(now)
            if verdict is not None:
                await self._done(verdict, before)

    async def _refresh_names(self, now: float) -> None:
        """A name's new address is a change like any other, but no word of the registry: it ends no trouble with that."""
        async with self._taking:
            if not await self._intake.refresh(now):
                return
            membership, _ = await self._intake.again()
            before = self._guard.in_force
            await self._done(self._guard.renamed(membership, self._clock()), before)

    async def _confirm(self) -> None:
        """A second opinion of the registry, and of the DNS behind the names that it tells."""
        asked_at = self._answers
        try:
            answer = await self.registry.confirm()
            async with self._taking:
                doubt = await self._intake.ask_again()
            if doubt:
                raise RegistryError(doubt)
        except RegistryError as error:
            self._told_error(error)
        else:
            await self._take(answer, asked_at=asked_at)

    async def _keep_saved(self) -> None:
        """Write what is in force, some time after it changed. A disk that fails is told, and tried again with the next change."""
        snapshots = self._snapshots
        while snapshots is not None:
            await self._unsaved.wait()
            self._unsaved.clear()
            in_force, now = self._guard.in_force, self._wall()
            if in_force is not None and not self._unverified and not self._guard.standing_in:
                saved = Saved(in_force, now, self.subject, self._intake.names)
                try:
                    await asyncio.to_thread(snapshots.save, self.upstream, self.name, saved)
                    self._saved_at = now
                except (OSError, RuntimeError) as error:  # a disk that is full, a thread that cannot be had
                    _log.warning(
                        "upstream %s: the state of %s is not kept: %s", self.upstream, self.name, error
                    )
            await self._sleep(SAVE_PAUSE_S)
