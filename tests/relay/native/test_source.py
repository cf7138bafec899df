"""What the C text promises: no Python in the engine, every system call through the table, every descriptor call counted."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from lbproxy.relay.native import _engine

FOLDER = Path(__file__).resolve().parents[3] / "lbproxy" / "relay" / "native"
BINDING = {"binding.h", "module.c", "arguments.c", "submits.c", "events.c"}
ENGINE = sorted(path for path in FOLDER.glob("*.[ch]") if path.name not in BINDING)
PARTS = [path for path in ENGINE if path.stem != "calls"]

# The watchdog's clock is its own: it must not stand still because the engine's is replaced. So are its looks at /proc and stderr.
OWN_CALLS = {"watchdog.c": {"clock_gettime", "open", "poll"}}

CALLS = {
    *(
        "recv",
        "recvfrom",
        "recvmsg",
        "send",
        "sendto",
        "sendmsg",
        "splice",
        "tee",
        "vmsplice",
        "read",
        "write",
        "readv",
    ),
    *(
        "pipe",
        "pipe2",
        "fcntl",
        "epoll_create",
        "epoll_create1",
        "epoll_ctl",
        "epoll_wait",
        "epoll_pwait",
        "eventfd",
    ),
    *(
        "close",
        "shutdown",
        "getsockopt",
        "setsockopt",
        "getsockname",
        "getpeername",
        "ioctl",
        "clock_gettime",
        "poll",
    ),
    *("socket", "connect", "accept", "accept4", "bind", "listen", "open", "openat", "dup", "mmap", "syscall"),
}


def code(path: Path) -> str:
    """The text without comments and strings."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="ascii"), flags=re.DOTALL)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def direct_calls(path: Path) -> set[str]:
    return {name for name in re.findall(r"(?<![\w>.])(\w+)\s*\(", code(path)) if name in CALLS}


def test_there_is_something_to_check() -> None:
    assert {path.name for path in ENGINE} >= {
        "engine.c",
        "engine.h",
        "session.c",
        "move.c",
        "pipes.c",
        "calls.c",
    }


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_engine_never_sees_python(path: Path) -> None:
    assert "Python.h" not in path.read_text(encoding="ascii")
    assert not re.search(r"\bPy[A-Z_]\w*", code(path))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_system_calls_go_through_the_table(path: Path) -> None:
    assert direct_calls(path) <= OWN_CALLS.get(path.name, set())


def test_direct_call_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "bad.c"
    path.write_text('/* close(1) */ x = calls->close(fd); f("close(2)"); close(fd);', encoding="ascii")
    assert direct_calls(path) == {"close"}


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_nothing_is_compared_below_zero(path: Path) -> None:
    """A failed system call is -1, no more and no less."""
    assert not re.search(r"calls->\w+\([^;]*\)\s*<\s*0", code(path))


def test_parts_are_read_at_one_sitting() -> None:
    """400 lines are the mark."""
    sizes = {path.name: path.read_text(encoding="ascii").count("\n") for path in FOLDER.glob("*.[ch]")}
    assert sizes.keys() > BINDING
    assert not {name: lines for name, lines in sizes.items() if lines > 400}


def test_extension_exports_its_beginning_alone() -> None:
    """The parts see each other's functions; nobody else does, and none of them can be another library's."""
    extension = ctypes.CDLL(_engine.__file__)
    headers = "".join(code(path) for path in FOLDER.glob("*.h"))
    declared = re.findall(r"^(?!static)\w[\w ]*[ *](\w+)\(.*\);$", headers, flags=re.MULTILINE)
    assert {"engine_start", "session_finish", "method_submit"} <= set(declared)
    assert [name for name in declared if hasattr(extension, name)] == []
    assert hasattr(extension, "PyInit__engine")


def test_registrations_are_never_modified() -> None:
    assert not any("EPOLL_CTL_MOD" in code(path) for path in ENGINE)
    assert not any("SPLICE_F_MORE" in code(path) for path in ENGINE)
