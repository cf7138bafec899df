"""The command line itself: usage, exit codes, what is loaded for what."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lbproxy.admin.sources import age
from lbproxy.cli import tables
from lbproxy.cli.arguments import duration, session_id, weight
from lbproxy.cli.main import main
from tests.patience import WITHIN_S

COMMANDS = (
    "run",
    "check",
    "demo",
    "schema",
    "version",
    "status",
    "drain",
    "undrain",
    "weight",
    "obey",
    "reload",
    "sessions",
    "kill",
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run"],
        ["check"],
        ["check", "--config"],
        ["stat"],
        ["status", "--heal"],
        ["undrain"],
        ["weight", "web", "10.0.0.1:80"],
        ["weight", "web", "10.0.0.1:80", "heavy"],
        ["obey"],
        ["kill"],
        ["kill", "0"],
        ["drain", "web", "--deadline", "soon"],
        ["sessions", "--limit", "-1"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: lbproxy" in captured.err


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    for command in COMMANDS:
        assert f"\n    {command} " in shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("1m30s", 90), ("1h", 3600), ("1.5s", 1.5), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((duration, text) for text in ("", "5", "s", "-1s", "5 s", "5d", "1e3s", "\u0661s", "infs")),
        *((weight, text) for text in ("", "-1", "1.5", "AUTO", "\u00b2", "9" * 50)),
        *((session_id, text) for text in ("", "0", "x", "-1", "9" * 50)),
    ],
)
def test_what_is_no_value_is_said(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


def test_version_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"].startswith(sys.version.split()[0])
    assert facts["kernel"].endswith(os.uname().release)
    assert isinstance(facts["splice"], bool)
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("lbproxy ")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**40, "1.0 TiB"), (2**60, "1048576.0 TiB")],
)
def test_sizes(number: int, text: str) -> None:
    assert tables.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (59.94, "59.9s"), (60, "1m00s"), (3599.9, "59m59s"), (3600, "1h00m"), (172800, "2d00h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_table_cannot_move_the_cursor() -> None:
    lines = tables.table(("NAME",), [("a\x1b[2J\nb",), ("\u2028\x9b",)])
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 3


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lbproxy", *arguments], text=True, check=False, timeout=WITHIN_S, **settings
    )


def test_a_client_command_loads_no_server() -> None:
    program = (
        "import sys; from lbproxy.cli.main import main; code = main(['status', '--admin', 'unix:/nowhere']);"
        "print(code, [name for name in ('aiohttp', 'asyncio', 'prometheus_client', 'pydantic', 'uvloop', 'yaml')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    assert done.stdout == "1 []\n", done.stderr


def test_a_closed_pipe_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = run("version", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
