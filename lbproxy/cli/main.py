"""The `lbproxy` command: its arguments, and which module carries out what.

A command's module is imported when the command runs: `lbproxy check` loads no HTTP server, `lbproxy status` no YAML.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from lbproxy.cli.arguments import duration, pair, session_id, weight

FAILED: Final = 1
USAGE: Final = 2

Handler = Callable[[argparse.Namespace], int]

# ruff: noqa: PLC0415 - the imports in the handlers are the point of this file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises SystemExit(2) for arguments it does not understand."""
    _open_standard_streams()
    parser = _parser()
    args = parser.parse_args(arguments)
    handler: Handler | None = getattr(args, "handler", None)
    if handler is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        code = handler(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `lbproxy sessions | head`
        # What is still buffered goes nowhere; without this the interpreter complains while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EIO}:
            raise
        # What the command had to say could not be written, and is still buffered: the same as above.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):
            sys.stderr.write(f"lbproxy: cannot write: {error.strerror}\n")
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    return code


def _open_standard_streams() -> None:
    """A descriptor from 0 to 2 that was closed by whoever started us would be given to the first socket, and the log written to
    that; and Python's stream for it is None."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbproxy",
        description="A layer-4 TCP load-balancing proxy.",
        epilog="Exit codes: 0 fine, 1 failed, 2 bad configuration or usage.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def command(name: str, text: str, handler: Handler, *, client: bool = False) -> argparse.ArgumentParser:
        parents = [_client_options()] if client else []
        sub = commands.add_parser(name, help=text, description=text, parents=parents, allow_abbrev=False)
        sub.set_defaults(handler=handler)
        return sub

    _config_option(command("run", "Run in the foreground.", _run))
    check = command("check", "Say what is wrong with a configuration, a line a problem.", _check)
    _config_option(check)
    check.add_argument("--bind", action="store_true", help="also try whether the ports are free")
    command("demo", "Run embedded upstreams with the proxy before them.", _demo)
    command("schema", "Print the JSON Schema of the configuration.", _schema)
    command("version", "Print the version and what was found here.", _version).add_argument(
        "--json", action="store_true", help="print JSON"
    )
    _client_commands(command)
    return parser


def _client_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    status = command("status", "Show listeners, upstreams and endpoints.", _client("status"), client=True)
    status.add_argument("upstream", nargs="?", metavar="UPSTREAM", help="only this one")
    status.add_argument("--health", action="store_true", help="only say by the exit code whether it lives")

    drain = command("drain", "Send no new sessions there.", _client("drain"), client=True)
    drain.add_argument("upstream", nargs="?", metavar="UPSTREAM")
    drain.add_argument("endpoint", nargs="?", metavar="ENDPOINT", help="as `status` shows it: 10.0.0.1:80")
    drain.add_argument(
        "--deadline", type=duration, metavar="TIME", help="close what is left after TIME (30s, 5m)"
    )
    drain.add_argument("--process", action="store_true", help="drain everything and end, as SIGTERM does")

    undrain = command("undrain", "Lift a drain.", _client("undrain"), client=True)
    undrain.add_argument("upstream", metavar="UPSTREAM")
    undrain.add_argument("endpoint", nargs="?", metavar="ENDPOINT")

    weigh = command("weight", "Set an endpoint's weight.", _client("weight"), client=True)
    weigh.add_argument("upstream", metavar="UPSTREAM")
    weigh.add_argument("endpoint", metavar="ENDPOINT")
    weigh.add_argument("weight", type=weight, metavar="N|auto", help="auto lifts what was set before")

    obey = command("obey", "Let go of endpoints that a source no longer names.", _client("obey"), client=True)
    obey.add_argument("upstream", metavar="UPSTREAM")
    obey.add_argument(
        "source", nargs="?", metavar="SOURCE", help="as `status` shows it: consul; else each that holds some"
    )

    _registering_commands(command)
    command("reload", "Read the configuration again.", _client("reload"), client=True)

    sessions = command("sessions", "List live sessions.", _client("sessions"), client=True)
    sessions.add_argument("--upstream", metavar="UPSTREAM", help="only its sessions")
    sessions.add_argument("--limit", type=session_id, default=100, metavar="N", help="at most N (100)")

    kill = command("kill", "Reset sessions.", _client("kill"), client=True)
    kill.add_argument("ids", nargs="+", type=session_id, metavar="ID")


def _registering_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    register = command("register", "Register an instance with an upstream.", _client("register"), client=True)
    register.add_argument("upstream", metavar="UPSTREAM")
    register.add_argument("endpoint", metavar="ADDRESS", help="host:port, where the instance serves")
    register.add_argument(
        "--lease", type=duration, default=30.0, metavar="TIME", help="for how long, unless renewed (30s)"
    )
    register.add_argument("--weight", type=int, metavar="N")
    register.add_argument("--zone", metavar="ZONE")
    register.add_argument("--priority", type=int, metavar="N")
    register.add_argument("--max-connections", type=int, metavar="N")
    register.add_argument(
        "--metadata", type=pair, action="append", default=[], metavar="KEY=VALUE", help="may be repeated"
    )
    register.add_argument(
        "--keep", action="store_true", help="renew until SIGTERM or SIGINT, then deregister and end"
    )
    deregister = command("deregister", "Take a registered instance away.", _client("deregister"), client=True)
    deregister.add_argument("upstream", metavar="UPSTREAM")
    deregister.add_argument("endpoint", metavar="ADDRESS")


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        required=True,
        metavar="FILE",
        help="a file, a folder of files, or consul:KEY (consul:PREFIX/ for all keys below); may be repeated",
    )


def _client_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument(
        "--admin",
        metavar="ADDRESS",
        help="admin address of the instance: host:port or unix:/path (env LBPROXY_ADMIN; 127.0.0.1:9900)",
    )
    options.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the token (env LBPROXY_ADMIN_TOKEN: the token)"
    )
    options.add_argument("--json", action="store_true", help="print JSON")
    return options


def _run(args: argparse.Namespace) -> int:
    from lbproxy.cli.run import run

    return run(args)


def _check(args: argparse.Namespace) -> int:
    from lbproxy.cli.check import check

    return check(args.config, bind=args.bind, environ=os.environ, out=sys.stdout, err=sys.stderr)


def _demo(args: argparse.Namespace) -> int:
    from lbproxy.demo.demo import main as demo

    return demo(args)


def _schema(_: argparse.Namespace) -> int:
    from lbproxy.cli.schema import schema

    return schema(sys.stdout)


def _version(args: argparse.Namespace) -> int:
    from lbproxy.cli.version import version

    return version(sys.stdout, as_json=args.json)


def _client(name: str) -> Handler:
    def handler(args: argparse.Namespace) -> int:
        from lbproxy.cli import remote

        return remote.run(name, args, os.environ)

    return handler
