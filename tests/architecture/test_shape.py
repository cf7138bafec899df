"""Files and functions stay small, names say something, tasks have a group and a name."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from tests.architecture.shape import FILE_LINES, FUNCTION_LINES, shape_problems

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["lbproxy", "tests"])
def test_every_file_keeps_the_shape(folder: str) -> None:
    problems = [
        problem
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for problem in shape_problems(path.relative_to(REPOSITORY), path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(["", *problems])


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("lbproxy/wire/utils.py", "", "'utils' names no concept"),
        ("lbproxy/wire/http_helper.py", "", "'helper' names no concept"),
        ("lbproxy/core/session.py", "", "'core' names no concept"),
        ("lbproxy/wire/__init__.py", "from lbproxy.wire.http import get\n", "__init__ files are empty"),
        ("lbproxy/wire/http.py", "\n" * (FILE_LINES + 1), "401 lines"),
        ("lbproxy/wire/http.py", "def f():\n" + "    g()\n" * FUNCTION_LINES, "f has 61 lines"),
        ("lbproxy/wire/http.py", "loop.create_task(f(), name='f')", "not on the loop"),
        ("lbproxy/wire/http.py", "asyncio.get_running_loop().create_task(f(), name='f')", "not on the loop"),
        ("lbproxy/wire/http.py", "group.create_task(f())", "tasks have names"),
    ],
)
def test_bad_shape_is_found(path: str, source: str, problem: str) -> None:
    (found,) = shape_problems(PurePath(path), source)
    assert problem in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lbproxy/wire/http.py", "\n" * FILE_LINES),
        ("lbproxy/wire/http.py", "def f():\n" + "    g()\n" * (FUNCTION_LINES - 1)),
        ("lbproxy/wire/__init__.py", ""),
        ("lbproxy/wire/score.py", "group.create_task(f(), name='f')"),
    ],
)
def test_good_shape_passes(path: str, source: str) -> None:
    assert shape_problems(PurePath(path), source) == []
