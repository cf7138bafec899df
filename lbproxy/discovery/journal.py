"""What one source writes into the log: each thing once, or once in a while."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

_log = logging.getLogger(__name__)

RECOVERY_PAUSE_S: Final = 10.0


class Journal:
    """Of `source` in `upstream`. `asks_for` says in words what it follows, "" for one that nobody can have misspelt."""

    def __init__(self, upstream: str, source: str, asks_for: str) -> None:
        self._upstream = upstream
        self._source = source
        self._asks_for = asks_for
        self._recovery_due = -math.inf
        self._named = False  # it has named somebody, ever
        self._told_empty = False

    def begin(self, *, named: bool) -> None:
        """What was known of the same subject before has named somebody."""
        self._named = named

    def take_over(self, predecessor: Journal) -> None:
        """As of one that followed the same: nothing is said twice."""
        self._named, self._told_empty = predecessor._named, predecessor._told_empty

    def warn(self, message: str) -> None:
        """What an operator should know."""
        _log.warning("upstream %s: %s: %s", self._upstream, self._source, message)

    def answered(self, entries: int) -> None:
        """That it names nobody, once: an answer like any other, also to a question with a misspelt name in it. And once that it does."""
        if self._named or not self._asks_for:
            return
        if entries:
            self._named = True
            if self._told_empty:
                _log.info("upstream %s: %s: names endpoints now", self._upstream, self._source)
        elif not self._told_empty:
            self._told_empty = True
            self.warn(
                f"answers, and names no endpoint: {self._asks_for} is empty, or misspelt in the configuration"
            )

    def recovered(self, failing_since: float, now: float, *, answered_before: bool) -> None:
        """That it answers again; of one that does and does not in turn, once in a while."""
        if now >= self._recovery_due:
            self._recovery_due = now + RECOVERY_PAUSE_S
            _log.info(
                "upstream %s: %s: answers%s, after %.1f s of trouble",
                self._upstream,
                self._source,
                " again" if answered_before else "",
                now - failing_since,
            )

    def refused(self, refused: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Entries that were not taken, by reason, with an example each."""
        reasons = ", ".join(
            f"{count} {reason} ({'such as ' if count > 1 else ''}{examples[reason]})"
            for reason, count in sorted(refused.items())
        )
        self.warn(f"entries refused: {reasons}")
