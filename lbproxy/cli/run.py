"""`lbproxy run`: load, choose the event loop, serve, and say how it ended by the exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lbproxy.app import logs
from lbproxy.app.application import Application, StartError
from lbproxy.config.load import ConfigError, Loaded, load

FINE: Final = 0
FAILED: Final = 1
BAD_CONFIGURATION: Final = 2


def run(args: argparse.Namespace) -> int:
    """Serve in the foreground with `args.config`, a list of files and folders."""
    paths = [Path(path) for path in args.config]
    return serve(lambda: load(paths, os.environ), os.environ)


def serve(
    reread: Callable[[], Loaded],
    environ: Mapping[str, str],
    started: Callable[[Application], None] | None = None,
) -> int:
    """Load by `reread` and serve until a signal; the exit code. `started` is called on the loop once everything listens."""
    logs.configure("info", "auto", sys.stderr)
    try:
        loaded = reread()
    except ConfigError as error:
        for line in error.errors:
            print(line, file=sys.stderr)
        return BAD_CONFIGURATION
    for line in loaded.warnings:
        print(f"warning: {line}", file=sys.stderr)
    try:
        factory = loop_factory(loaded.configuration.runtime.event_loop)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_main(loaded, reread, environ, started))
    except* StartError as group:
        starts = _leaves(group)
        for line in [line for each in starts for line in each.errors]:
            print(f"lbproxy: {line}", file=sys.stderr)
        return_code = BAD_CONFIGURATION if any(each.usage for each in starts) else FAILED
    else:
        return_code = FINE
    return return_code


async def _main(
    loaded: Loaded,
    reread: Callable[[], Loaded],
    environ: Mapping[str, str],
    started: Callable[[Application], None] | None,
) -> None:
    application = Application(loaded, reread, environ)
    async with asyncio.TaskGroup() as group:
        if started is not None:
            group.create_task(_announce(application, started), name="announce")
        await application.run()


async def _announce(application: Application, started: Callable[[Application], None]) -> None:
    await application.started.wait()
    started(application)


def _leaves(group: BaseExceptionGroup[StartError]) -> list[StartError]:
    found: list[StartError] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


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
    return uvloop.new_event_loop
