"""`lbproxy run`: load, serve, and say how it ended by the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lbproxy.app import logs
from lbproxy.app.application import Application
from lbproxy.app.starting import BAD_CONFIGURATION, serve
from lbproxy.config.load import ConfigError, Loaded, load


def run(args: argparse.Namespace) -> int:
    """Serve in the foreground with `args.config`, a list of files and folders, until a signal."""
    paths = [Path(path) for path in args.config]

    def read() -> Loaded:
        return load(paths, os.environ)

    try:
        loaded = read()
    except ConfigError as error:
        for line in error.errors:
            print(line, file=sys.stderr)
        return BAD_CONFIGURATION
    options = loaded.configuration.log
    logs.configure(options.level, options.format, sys.stderr)

    async def main() -> None:
        await Application(loaded, read, os.environ).run()

    return serve(main, loaded.configuration.runtime.event_loop)
