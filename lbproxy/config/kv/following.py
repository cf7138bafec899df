"""What to make of each answer about one key: whether it is a new version, what to ask next and when. No I/O, no clock.

Fail-static: an error, a key that is gone and an agent that came back empty change nothing; they are told. A prefix that has lost
keys is believed when a second reading, ten seconds later, says the same: a store that is being filled again looks like that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lbproxy.config.kv.documents import Documents, Key
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.strategy import Random

BACKOFF: Final = Backoff(base_s=0.1, cap_s=30.0, floor_s=0.05)
LONGEST_WAIT_S: Final = 60.0
"""However long the agent asks to be left alone."""
PACE_S: Final = 0.5
"""After each answer: versions that come faster are taken together, and what lies below a prefix and is none of its parts wakes the
query, too."""
SETTLE_S: Final = 0.25
"""A prefix's keys are written one after the other: wait that long for the rest."""
CONFIRM_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Next:
    """After an answer or an error: try `version`, if there is one, wait, then ask with `index` (0: without waiting for a change).
    `news` is worth a line in the log, a warning when `bad`."""

    index: int
    wait_s: float = 0.0
    version: Documents | None = None
    news: str = ""
    bad: bool = False


class Following:
    """One key. `seen` is the version that was tried last, whether or not it was taken."""

    def __init__(self, key: Key, seen: Documents, rng: Random) -> None:
        self.key = key
        self.warning = ""
        """Why what is in force may not be what stands in Consul; "" when all is well."""
        self._seen = seen
        self._rng = rng
        self._index = 0
        self._failures = 0
        self._settling: Documents | None = None
        self._shrunk: tuple[Documents, float] | None = None  # and since when

    def failed(self, error: str, retry_after_s: float | None = None) -> Next:
        """The key could not be read, and it was asked not to try for some time. The index is void: the agent may have been
        restarted."""
        self._index = 0
        self._settling = self._shrunk = None
        wait_s = max(BACKOFF.wait_s(self._failures, self._rng), min(retry_after_s or 0.0, LONGEST_WAIT_S))
        self._failures += 1
        return self._tell(0, wait_s, f"cannot be read: {error}")

    def answered(self, found: Documents | None, index: int | None, now: float) -> Next:
        """`found` None: there is no such key. `index` is the answer's X-Consul-Index."""
        self._failures = 0
        # Backwards: the store was restored or is another one; a query with the old index would wait in vain.
        given = index or 0
        self._index = given if given >= self._index else 0
        if found is None:
            self._settling = self._shrunk = None
            return self._tell(self._index, PACE_S, "is gone from Consul")
        if found == self._seen:
            self._settling = self._shrunk = None
            if not self.warning:
                return Next(self._index, PACE_S)
            self.warning = ""
            return Next(self._index, PACE_S, news="can be read again")
        if self.key.is_prefix and found != self._settling:
            self._settling = found
            return Next(0, SETTLE_S)
        if self.key.is_prefix and (gone := self._seen.names - found.names):
            if self._shrunk is None or self._shrunk[0] != found:
                self._shrunk = (found, now)
            left_s = self._shrunk[1] + CONFIRM_S - now
            if left_s > 0:
                told = f"has lost {', '.join(sorted(gone))}: believed when it is still so in {CONFIRM_S:g} s"
                return self._tell(0, left_s, told)
        self._settling = self._shrunk = None
        self._seen = found
        self.warning = ""
        return Next(self._index, PACE_S, found)

    def _tell(self, index: int, wait_s: float, what: str) -> Next:
        told = what == self.warning
        self.warning = what
        return Next(index, wait_s, news="" if told else f"{what}; what is in force stays", bad=True)
