"""`lbproxy run`: load, serve, and say how it ended by the exit code."""

from __future__ import annotations

import argparse
import os
import random
import sys

from lbproxy.app import logs
from lbproxy.app.application import Application
from lbproxy.app.remote import Remote, Unreachable, begin
from lbproxy.app.starting import BAD_CONFIGURATION, FAILED, serve
from lbproxy.config.kv.documents import is_remote
from lbproxy.config.load import ConfigError, Loaded, load


def run(args: argparse.Namespace) -> int:
    """Serve in the foreground with `args.config`, a list of files, folders and keys, until a signal."""
    paths: list[str] = args.config
    remote: Remote | None = None

    def read() -> Loaded:
        return load(paths, os.environ) if remote is None else remote.read()

    try:
        if any(map(is_remote, paths)):
            logs.configure("info", "auto", sys.stderr)  # how it is to be logged is not known yet
            loaded, remote = begin(paths, os.environ, random.Random())
        else:
            loaded = read()
    except ConfigError as error:
        for line in error.errors:
            print(line, file=sys.stderr)
        return BAD_CONFIGURATION
    except ValueError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except Unreachable as error:
        print(f"lbproxy: {error}", file=sys.stderr)
        return FAILED
    options = loaded.configuration.log
    logs.configure(options.level, options.format, sys.stderr)

    async def main() -> None:
        await Application(loaded, read, os.environ, remote, ends_process=True).run()

    return serve(main, loaded.configuration.runtime.event_loop)
