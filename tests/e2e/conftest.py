"""The program under test, for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, program

Start = Callable[..., Program]
"""Takes a configuration and the settings of `Program`; what it starts is ended, and must end well, with the test."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start lbproxy with a configuration, as often as a test wants."""
    with ExitStack() as running:
        count = 0

        def begin(config: str, **settings: Any) -> Program:
            nonlocal count
            count += 1
            return running.enter_context(program(tmp_path / f"lbproxy-{count}", config, **settings))

        yield begin
