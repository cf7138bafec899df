"""How long a test waits for what comes at once on a machine that has nothing else to do."""

from __future__ import annotations

from typing import Final

# A hang's bound, not an expectation: it costs time only where something is broken, so it is far beyond what a busy machine takes.
WITHIN_S: Final = 60.0
