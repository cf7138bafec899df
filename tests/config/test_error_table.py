"""One mistake at a time, in every key: the exact line that a user reads (error_lines.txt)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.config import texts

MALFORMED: Final = "expected ${NAME} or ${NAME:-default} ($${ for a literal ${)"

ROWS: Final = [
    row
    for row in (Path(__file__).parent / "error_lines.txt").read_text(encoding="utf-8").splitlines()
    if row and not row.startswith("#")
]


@pytest.mark.parametrize("row", ROWS)
def test_a_mistake_gives_its_line_and_no_other(row: str) -> None:
    place, _, rest = row.partition(" | ")
    fragment, _, line = rest.partition(" => ")
    put: Callable[[str], str] = getattr(texts, place)
    assert texts.errors(put(fragment)) == [line]


def test_the_text_without_a_mistake_loads_without_a_warning() -> None:
    assert texts.loaded(texts.GOOD).warnings == ()


def test_each_missing_key_is_told() -> None:
    assert texts.errors("listeners: {web: {}}") == [
        "1:18: listeners.web: 'bind' is missing",
        "1:18: listeners.web: 'upstream' is missing",
    ]


@pytest.mark.parametrize(
    ("endpoints", "warned"),
    [
        ("{address: 10.0.0.1:80, weight: 0}", True),
        ("{address: 10.0.0.1:80, weight: 0}, {address: 10.0.0.2:80, weight: 0}", True),
        ("{address: 10.0.0.1:80, weight: 0}, 10.0.0.2:80", False),
        ("{address: 10.0.0.1:80, weight: 1}", False),
    ],
)
def test_an_upstream_that_can_take_nobody_is_a_warning(endpoints: str, warned: bool) -> None:
    loaded = texts.loaded(texts.upstream(f"endpoints: [{endpoints}]"))
    line = "f:7:5: upstreams.web: every endpoint has weight 0: it takes no new sessions"
    assert loaded.warnings == ((line,) if warned else ())


@pytest.mark.parametrize(
    "fragment",
    [
        "tcp: {keepalive: 1s}",
        "tcp: {keepalive: 32767s}",
        "tcp: {user_timeout: 24d}",
        "tcp: {receive_buffer: 1GiB, send_buffer: 1KiB}",
        "timeouts: {idle: 1ms, max_duration: 3650d}",
        "backlog: 65535",
        "backlog: 0x10",
        "max_connections: 10000000",
    ],
)
def test_the_bounds_themselves_are_allowed(fragment: str) -> None:
    assert texts.errors(texts.listener(fragment)) == []


def test_other_users_of_a_free_default_admin_address_are_told_to_move_one() -> None:
    """The admin interface is bound without being mentioned; moving it resolves the conflict."""
    taken = texts.bind("127.0.0.1:9900")
    assert len(texts.errors(taken)) == 1
    assert texts.errors(f"admin: {{bind: 127.0.0.1:9901}}\n{taken}") == []


def test_nothing_is_said_of_an_upstream_whose_section_was_refused() -> None:
    text = "listeners: {web: {bind: 127.0.0.1:80, upstream: web}}\nupstreams: *shared\n"
    assert texts.errors(text) == ["2:12: upstreams: aliases are not allowed (*shared)"]


@pytest.mark.parametrize("fragment", ["${A:-${B}}", "${A:-${A:-x}", "${A:-" * 20000, "${" * 20000])
def test_nested_and_endless_references_are_refused_at_once(fragment: str) -> None:
    lines = texts.errors(f"a: '{fragment}'", {"A": "x", "B": "y"})
    assert lines == ["1:1: 'listeners' is missing", f"1:4: a: {MALFORMED}"]


def test_many_wrong_names_are_told_in_good_time() -> None:
    """Comparing 400 names with 400 others took seconds; only the first few get a suggestion."""
    wrong = "".join(f"  l{i}: {{bind: 127.0.0.1:{i + 1}, upstream: servex{i}}}\n" for i in range(400))
    known = "".join(f"  server{i}: {{endpoints: [10.0.0.1:80]}}\n" for i in range(400))
    lines = texts.errors(f"listeners:\n{wrong}upstreams:\n{known}")
    assert len(lines) == 400
    assert sum("did you mean" in line for line in lines) == 20
