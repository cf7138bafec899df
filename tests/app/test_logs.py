"""Event log lines: one line each, JSON or text, nothing in them that moves a cursor."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.app.logs import JsonLine, TextLine, configure, one_line


def record(message: str, *, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("lbproxy.app", logging.WARNING, __file__, 1, message, None, info)
    made.created = 1767323045.6784
    return made


def failed() -> BaseException:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        return error


def test_text_has_time_level_and_name() -> None:
    assert (
        TextLine().format(record("it happened"))
        == "2026-01-02T03:04:05.678Z WARNING lbproxy.app: it happened"
    )


def test_json_has_the_same() -> None:
    assert json.loads(JsonLine().format(record("it happened"))) == {
        "ts": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "logger": "lbproxy.app",
        "message": "it happened",
    }


def test_a_traceback_stays_on_its_line() -> None:
    text = TextLine().format(record("broken", error=failed()))
    assert text.splitlines() == [text]
    assert "ValueError: two\\nlines" in text
    found = json.loads(JsonLine().format(record("broken", error=failed())))
    assert found["exception"].endswith("ValueError: two\nlines")


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_any_message_is_one_line_without_controls(message: str) -> None:
    for line in (one_line(message), JsonLine().format(record(message.replace("%", "")))):
        assert len(line.splitlines()) <= 1
        assert not [char for char in line if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}]


@pytest.fixture
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("raiseExceptions", "logThreads", "logProcesses", "logMultiprocessing")
    level, handlers, switches = root.level, root.handlers[:], {name: getattr(logging, name) for name in names}
    root.handlers = []
    yield
    root.setLevel(level)
    root.handlers = handlers
    for name, value in switches.items():
        setattr(logging, name, value)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(
    ("line_format", "stream", "as_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_the_format_is_chosen(line_format: str, stream: io.StringIO, as_json: bool) -> None:
    configure("info", line_format, stream)  # type: ignore[arg-type]
    log = logging.getLogger("lbproxy.test")
    log.debug("not this")
    log.info("this, %d times", 2)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("{") == as_json
    assert re.search(r"this, 2 times", line)


@pytest.mark.usefixtures("_as_before")
def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "text", first)
    configure("error", "text", second)
    logging.getLogger("lbproxy.test").info("too quiet")
    logging.getLogger("lbproxy.test").error("loud")
    assert not first.getvalue()
    assert second.getvalue().count("\n") == 1


def test_whoever_logs_a_url_its_secrets_are_left_out() -> None:
    told = record("GET http://u:hidden@h/?t=hidden: no", error=OSError("https://h/?hidden"))
    for line in (TextLine().format(told), JsonLine().format(told)):
        assert "GET http://***@h/?t=***: no" in line
        assert "OSError: https://h/?***" in line
        assert "hidden" not in line
