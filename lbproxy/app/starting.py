"""From a coroutine that serves to the exit code of a command: the event loop, and what kept it from starting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Final

from lbproxy.app.application import StartError

FINE: Final = 0
FAILED: Final = 1
BAD_CONFIGURATION: Final = 2


def serve(main: Callable[[], Coroutine[None, None, None]], event_loop: str) -> int:
    """Run `main()` on the chosen event loop until it ends. A StartError is told on stderr, a line a reason."""
    try:
        with asyncio.Runner(loop_factory=loop_factory(event_loop)) as runner:
            runner.run(main())
    except* StartError as group:
        starts = _leaves(group)
        for line in [line for each in starts for line in each.errors]:
            sys.stderr.write(f"lbproxy: {line}\n")
        code = BAD_CONFIGURATION if any(each.usage for each in starts) else FAILED
    else:
        code = FINE
    return code


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """`auto` is uvloop where it is installed. Raises StartError when uvloop was asked for and is not there."""
    if choice == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415 - optional on platforms without it
    except ImportError:
        if choice == "uvloop":
            raise StartError(["runtime.event_loop: uvloop is not installed"], usage=True) from None
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leaves(group: BaseExceptionGroup[StartError]) -> list[StartError]:
    found: list[StartError] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
