"""How a worker of the sanitized runs tells its end (worker.sh)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import WITHIN_S

WORKER = Path(__file__).resolve().parent / "worker.sh"

# How it ends -> its status, and what is told of it.
ENDS = {
    "well": ("pass", 0, ""),
    "by a report of the sanitizer": ("import os; os._exit(66)", 66, "a worker ended with status 66\n"),
    "by a signal": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        137,
        "a worker ended with status 137\n",
    ),
    "by the watchdog": ("import os; os.abort()", 134, "Fatal Python error: Aborted"),
}


@pytest.mark.parametrize(("script", "status", "told"), ENDS.values(), ids=ENDS)
def test_worker_tells_how_it_ended(script: str, status: int, told: str) -> None:
    done = subprocess.run(
        [WORKER, "-c", script],
        env=os.environ | {"WORKER_PYTHON": sys.executable, "WORKER_PRELOAD": ""},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == status
    assert told in done.stderr
    assert bool(done.stderr) == bool(status)


def test_worker_hands_on_what_it_is_told() -> None:
    done = subprocess.run(
        [
            WORKER,
            "-c",
            "import os, sys; print(sys.argv[1], os.environ['LD_PRELOAD'], sys.stdin.read())",
            "a b",
        ],
        env=os.environ | {"WORKER_PYTHON": sys.executable, "WORKER_PRELOAD": ""},
        input="heard",
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=True,
    )
    assert done.stdout == "a b  heard\n"
