"""Long work in a thread beside the event loop, which has the interpreter to itself while it needs it."""

from __future__ import annotations

import time
from typing import Final

WORK_S: Final = 0.001
BREATH_S: Final = 0.0002


class Breathing:
    """Lets the other threads have the interpreter now and again: one that waits for it would otherwise get it every 5 ms only
    (sys.getswitchinterval), and the loop takes many turns."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        """Between two small steps of the work."""
        if time.perf_counter() - self._since > WORK_S:
            time.sleep(BREATH_S)
            self._since = time.perf_counter()
