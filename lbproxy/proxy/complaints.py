"""What goes wrong a thousand times a second is logged once in a while, with the number of times in between."""

from __future__ import annotations

import logging
from typing import Final

INTERVAL_S: Final = 10.0


class Complaints:
    """One line a key and interval. Keys come from the program and the configuration, never from clients, so they are few."""

    __slots__ = ("_logger", "_said")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[
            str, tuple[float, int]
        ] = {}  # key -> when it was said last, and how often kept back since

    def say(self, level: int, key: str, message: str, now: float) -> None:
        """Log `message`, or count that it was kept back. `now` is monotonic seconds."""
        said_at, kept_back = self._said.get(key, (-INTERVAL_S, 0))
        if now - said_at < INTERVAL_S:
            self._said[key] = (said_at, kept_back + 1)
            return
        self._said[key] = (now, 0)
        more = f" (and {kept_back} times since this was said last)" if kept_back else ""
        self._logger.log(level, "%s%s", message, more)
