"""What one registration needs next: a state machine that is asked for steps and told how they went. No I/O, no clock.

A registration is renewed three times within its TTL. A change of the verdict is told at once, a change of nothing but its words with
the next renewal. Whatever the agent no longer knows is registered again: it has restarted, or somebody has cleaned up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lbproxy.domain.backoff import Backoff
from lbproxy.domain.strategy import Random
from lbproxy.registration.definition import Definition, Verdict

RENEWALS: Final = 3
"""Within a TTL: two may be lost, and an agent that came back empty is found out in time."""

GAP_S: Final = 1.0
"""Between two verdicts of different status: a readiness that flutters is no reason to flood the registry's log."""

SPREAD: Final = 0.1
"""Of a renewal's time, so that a fleet that was started at once does not renew at once for ever."""

BACKOFF_CAP_S: Final = 30.0


class State(StrEnum):
    """`ABSENT`: not registered, as far as is known. `LEAVING`: to be deregistered. `GONE`: nothing is left to do."""

    ABSENT = "absent"
    REGISTERED = "registered"
    LEAVING = "leaving"
    GONE = "gone"


class Failure(StrEnum):
    """`FORGOTTEN`: the agent knows no such service or check. `ERROR`: anything else, worth another try."""

    FORGOTTEN = "forgotten"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Register:
    definition: Definition
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Update:
    check_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Deregister:
    id: str


Step = Register | Update | Deregister


class Registration:
    """One service. `rng` spreads renewals and back-off. Times are monotonic seconds.

    One step at a time: after `next` has given one, `done` or `failed` says what became of it. In between everything else may be
    called.
    """

    def __init__(self, definition: Definition, verdict: Verdict, rng: Random) -> None:
        self.definition = definition
        self.verdict = verdict
        self._rng = rng
        self._known: Definition | None = None  # what the agent has
        self._told: Verdict | None = None  # what it was told by an update
        self._sent_register = False  # it may have taken what it did not acknowledge
        self._leaving = False
        self._gone = False
        self._renew_at = 0.0
        self._status_at = 0.0  # before this time, no other status is told
        self._not_before = 0.0
        self._failures = 0  # in a row

    @property
    def state(self) -> State:
        if self._gone:
            return State.GONE
        if self._leaving:
            return State.LEAVING
        return State.ABSENT if self._known is None else State.REGISTERED

    @property
    def told(self) -> Verdict | None:
        """The verdict that the agent has from us, if it has one."""
        return self._told

    def judge(self, verdict: Verdict) -> None:
        """The verdict from now on."""
        self.verdict = verdict

    def redefine(self, definition: Definition) -> None:
        """The definition from now on. It has the same id: another one is another registration."""
        if definition.id != self.definition.id:
            raise ValueError(f"{definition.id} is not {self.definition.id}")
        if definition != self.definition:
            self.definition = definition
            self._not_before = 0.0

    def leave(self) -> None:
        """From now on the service is to be gone. There is no way back."""
        self._leaving = True
        self._not_before = 0.0
        if not self._sent_register:
            self._gone = True

    def next(self, now: float) -> tuple[Step | None, float]:
        """The step that is due, or None and when to ask again at the latest (infinity: never)."""
        if self._gone:
            return None, float("inf")
        if now < self._not_before:
            return None, self._not_before
        if self._leaving:
            return Deregister(self.definition.id), now
        if self._known != self.definition:
            self._sent_register = True
            return Register(self.definition, self.verdict), now
        due = self._due()
        return (Update(self.definition.check_id, self.verdict), now) if now >= due else (None, due)

    def _due(self) -> float:
        """When the check is to be updated."""
        if self._told is None:
            return 0.0  # a registration carries the status; the words come with the first update
        changed = self._told.status != self.verdict.status
        return min(self._status_at, self._renew_at) if changed else self._renew_at

    def done(self, step: Step, now: float) -> None:
        """The agent has acknowledged the step."""
        match step:
            case Register(definition, _):
                # Not yet the end of a row of failures: an agent that forgets what it was just told must not be asked in a loop.
                self._known = definition
                self._told = None
            case Update(_, verdict):
                if self._told is None or self._told.status != verdict.status:
                    self._status_at = now + GAP_S
                self._told = verdict
                self._renew_at = now + self.definition.ttl_s / RENEWALS * (1 - SPREAD * self._rng.random())
                self._failures = 0
            case Deregister():
                self._gone = True

    def failed(self, step: Step, failure: Failure, now: float, retry_after_s: float | None = None) -> None:
        """The step had no success, and the agent asks to be left alone for some time."""
        if isinstance(step, Deregister) and failure is Failure.FORGOTTEN:
            self._gone = True
            return
        at_once = False
        if isinstance(step, Update) and failure is Failure.FORGOTTEN:
            at_once = self._told is not None  # it did know us: it has lost its memory, and is well
            self._known = self._told = None
        if at_once or (self._leaving and not isinstance(step, Deregister)):
            return
        cap_s = min(BACKOFF_CAP_S, self.definition.ttl_s / RENEWALS)
        backoff = Backoff(base_s=min(0.5, cap_s), cap_s=cap_s, floor_s=0.05)
        asked_s = min(retry_after_s or 0.0, BACKOFF_CAP_S)
        self._not_before = now + max(backoff.wait_s(self._failures, self._rng), asked_s)
        self._failures += 1
