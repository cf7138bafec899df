"""A campaign's parts: the program in between, and clients and upstreams as programs of their own (load.py)."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.e2e.conftest import Start, start
from tests.patience import WITHIN_S
from tests.relay.scale import FULL

__all__ = ["Start", "start"]

ROOT = Path(__file__).resolve().parents[2]
WORK_WITHIN_S = 900.0 if FULL else 120.0


class Load:
    """One process of load.py. `counts` asks one that stays for its counts; `done` waits for its end, which must be a good one."""

    def __init__(self, role: str, settings: dict[str, int]) -> None:
        words = [f"{key}={value}" for key, value in settings.items()]
        self._role = role
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.load", role, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self.port = int(self._line(WITHIN_S)) if role.startswith("upstream") else 0

    def _line(self, within_s: float) -> str:
        assert select.select([self._stdout], [], [], within_s)[0], f"{self._role} says nothing"
        return self._stdout.readline()

    def counts(self) -> dict[str, int]:
        self._stdin.write("\n")
        self._stdin.flush()
        return dict(json.loads(self._line(WITHIN_S)))

    def done(self) -> dict[str, int]:
        """Its counts. One that stays is told to end."""
        self._stdin.close()
        line = self._line(WORK_WITHIN_S)
        assert self.process.wait(WITHIN_S) == 0, f"{self._role} saw a wrong byte"
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self._stdin, self._stdout):
            pipe.close()


Begin = Callable[..., Load]


@pytest.fixture
def load() -> Iterator[Begin]:
    """Start a role of load.py; what still runs is ended with the test."""
    with ExitStack() as running:

        def begin(role: str, **settings: int) -> Load:
            return running.enter_context(Load(role, settings))

        yield begin


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Tell a campaign's figures: full-size runs print them."""

    def tell(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)
        print("figures:", *(f"{name}={value}" for name, value in figures.items()), flush=True)  # noqa: T201

    return tell
